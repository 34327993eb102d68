"""Two processes train one network."""

import socket

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing, nn

from medsaga_lib.errors import UserError
from medsaga_lib.pretraining import run as module
from medsaga_lib.pretraining.pictures import Pictures, Settings
from medsaga_lib.pretraining.run import Run, train
from medsaga_lib.pretraining.together import any_of_all, average_gradients, join, share

SMALL = Settings(steps=3, size=32, pictures=4, objects=2, warmup=1, width=24, depth=1, heads=2)


def one_of_two(number, port, folder):
    with pytest.MonkeyPatch.context() as patch:
        for key, value in {
            "RANK": number,
            "WORLD_SIZE": 2,
            "MASTER_ADDR": "localhost",
            "MASTER_PORT": port,
        }.items():
            patch.setenv(key, str(value))
        join("cpu")
    try:
        assert share() == (number, 2)
        assert any_of_all(number == 1, "cpu")
        assert not any_of_all(False, "cpu")

        layer = nn.Linear(2, 1)
        layer.weight.grad = torch.tensor([[1.0, 10.0]]) * (number + 1)
        if number == 0:
            layer.bias.grad = torch.tensor([6.0])
        average_gradients(layer)
        assert layer.weight.grad.tolist() == [[1.5, 15.0]]
        assert layer.bias.grad.tolist() == [3.0]

        with pytest.raises(UserError, match="2 processes cannot share 3 pictures"):
            Pictures(Settings(pictures=3))
        torch.save(Pictures(SMALL)[1]["images"], folder / f"images{number}.pt")

        module.TEST_PICTURES = 1
        run = Run(SMALL)
        train(run, folder / "run")
        torch.save(run.sam.state_dict(), folder / f"weights{number}.pt")
    finally:
        dist.destroy_process_group()


def test_they_share_the_pictures_and_stay_alike(tmp_path):
    assert share() == (0, 1)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(one_of_two, (port, tmp_path), nprocs=2)

    halves = [torch.load(tmp_path / f"images{number}.pt") for number in range(2)]
    whole = Pictures(SMALL)[1]["images"]
    assert torch.equal(torch.stack(halves, dim=1).flatten(0, 1), whole)
    first, second = (torch.load(tmp_path / f"weights{number}.pt") for number in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    begun = Run(SMALL).sam.state_dict()
    assert any(not torch.equal(first[key], begun[key]) for key in first)

    saved = Run.load(tmp_path / "run" / "run.safetensors")
    assert saved.step == 3
    assert all(torch.equal(first[key], value) for key, value in saved.sam.state_dict().items())
