"""Two processes train one network."""

import os
import socket
from dataclasses import replace

import torch
import torch.distributed as dist
from torch import multiprocessing

from medsaga_lib.pretraining import run as module
from medsaga_lib.pretraining.pictures import Pictures, Settings
from medsaga_lib.pretraining.run import Run, train
from medsaga_lib.pretraining.together import any_of_all, joined, objective, share

SMALL = Settings(
    steps=3, size=32, pictures=4, objects=2, warmup=1, width=24, depth=1, heads=2, processes=2
)


def gradients(folder, number, corrections):
    """Of the loss on one process's share; of two processes their mean."""
    sam, batch = Run(SMALL).sam, torch.load(folder / f"batch{number}.pt")
    batch["noise"] = batch["noise"][:corrections]
    loss = objective(sam, corrections)
    loss(batch)["loss"].backward()
    return {name: p.grad for name, p in sam.named_parameters() if p.grad is not None}


def one_of_two(number, port, folder):
    set_by_torchrun = {
        "TORCHELASTIC_RUN_ID": "test",
        "RANK": number,
        "LOCAL_RANK": number,
        "WORLD_SIZE": 2,
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": port,
    }
    os.environ.update({key: str(value) for key, value in set_by_torchrun.items()})
    with joined("cpu"):
        assert share() == (number, 2)
        assert any_of_all(number == 1, "cpu")
        assert not any_of_all(False, "cpu")

        torch.save(Pictures(SMALL)[1], folder / f"batch{number}.pt")
        for corrections in (0, SMALL.corrections):
            found = gradients(folder, number, corrections)
            torch.save(found, folder / f"gradients{number}_{corrections}.pt")

        module.TEST_PICTURES = 1
        run = Run(SMALL)
        train(run, folder / "run", minutes=0)  # all stop after the first step
        dist.barrier()  # it is saved
        run = Run.load(folder / "run" / "run.safetensors")
        assert run.step == 1
        train(run, folder / "run")
        torch.save(run.sam.state_dict(), folder / f"weights{number}.pt")
    assert share() == (0, 1)


def test_they_share_the_pictures_and_stay_alike(tmp_path):
    assert share() == (0, 1)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(one_of_two, (port, tmp_path), nprocs=2)

    halves = [torch.load(tmp_path / f"batch{number}.pt")["images"] for number in range(2)]
    whole = Pictures(replace(SMALL, processes=1))[1]["images"]
    assert torch.equal(torch.stack(halves, dim=1).flatten(0, 1), whole)
    for corrections in (0, SMALL.corrections):
        alone = [gradients(tmp_path, number, corrections) for number in range(2)]
        for number in range(2):
            averaged = torch.load(tmp_path / f"gradients{number}_{corrections}.pt")
            assert averaged.keys() == alone[0].keys() == alone[1].keys()
            for name, mean in averaged.items():
                wanted = (alone[0][name] + alone[1][name]) / 2
                assert torch.allclose(mean, wanted, rtol=1e-4, atol=1e-6), name
    first, second = (torch.load(tmp_path / f"weights{number}.pt") for number in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    begun = Run(SMALL).sam.state_dict()
    assert any(not torch.equal(first[key], begun[key]) for key in first)

    saved = Run.load(tmp_path / "run" / "run.safetensors")
    assert saved.step == 3
    assert all(torch.equal(first[key], value) for key, value in saved.sam.state_dict().items())
