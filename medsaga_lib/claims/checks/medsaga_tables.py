"""Checks of MedSAGa's tables 1 to 3 and of the data sets of section 4.1."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy import stats

from medsaga_lib.claims.arithmetic import half_unit, listed, rounds_to, signs
from medsaga_lib.claims.claim import Claim, Found, check, reproduced_if
from medsaga_lib.claims.tables import figure, printed, table, text_of

SETS = ("Chest-Xray", "ISLES", "Spleen", "AMOS")
NAMES = {"medsaga": "MedSAGa", "samed": "SAMed", "dae_former": "DAE-Former"}


def _rows(data_set: str, name: str = "medsaga_table1") -> pd.DataFrame:
    """Return the rows of one data set."""
    return table(name)[table(name).index.str.startswith(data_set)]


def _lead(other: str, data_set: str = "", metric: str = "dice") -> pd.Series:
    """Return MedSAGa's cells minus another method's, rounded to the printed digits."""
    rows = _rows(data_set)
    return (rows[f"medsaga_{metric}"] - rows[f"{other}_{metric}"]).round(3)


def _counted(differences: Iterable[float], higher: str = "higher", lower: str = "lower") -> str:
    above, equal, below = signs(differences)
    return f"{higher} in {above}, equal in {equal}, {lower} in {below}"


@check
def medsaga_settings(claim: Claim) -> Found:
    sets = printed("medsaga_table1")["data_set"].nunique()
    rows = len(table("medsaga_table1"))
    same = sets == figure("medsaga_text", "4.1 data sets") and rows == claim.value
    return reproduced_if(same, f"{rows} rows, {sets} data sets", "rows and blocks of Table 1")


@check
def medsaga_dice_possible(claim: Claim) -> Found:
    tables = [table(f"medsaga_table{number}") for number in (1, 2, 3)]
    dice = pd.concat([rows.filter(like="dice").stack() for rows in tables]).dropna()
    measured = f"{dice.min():.3f} to {dice.max():.3f}"
    return reproduced_if(dice.between(0, 1).all(), measured, f"{len(dice)} cells of three tables")


@check
def medsaga_hd95_possible(claim: Claim) -> Found:
    largest, diagonal = {}, {}
    for data_set in ("ISLES", "AMOS"):
        rows = [_rows(data_set, f"medsaga_table{number}") for number in (1, 3)]
        largest[data_set] = max(part.filter(like="hd95").max(axis=None) for part in rows)
        diagonal[data_set] = 2**0.5 * figure("medsaga_text", f"4.1 {data_set} slice side")
    measured = listed(list(largest.values()), 3)
    reason = f"the diagonals have {listed(list(diagonal.values()), 1)} pixels"
    return reproduced_if(all(largest[s] < diagonal[s] for s in largest), measured, reason)


@check
def medsaga_shots_match_table1(claim: Claim) -> Found:
    rows = printed("medsaga_shots")
    listed_there = rows[rows["in_text"] != ""]
    equal = (listed_there["in_text"] == listed_there["in_table1"]).all()
    for data_set, numbers in rows["in_table1"].items():
        equal &= numbers.split() == _rows(str(data_set)).index.str.split().str[-1].tolist()
    count = sum(len(numbers.split()) for numbers in listed_there["in_text"])
    reason = "Chest-Xray, ISLES and AMOS; the section lists none for Spleen"
    return reproduced_if(equal and count == claim.value, f"{count} numbers, all equal", reason)


@check
def medsaga_spleen_shots(claim: Claim) -> Found:
    in_text, in_table = printed("medsaga_shots").loc["Spleen", ["in_text", "in_table1"]]
    if in_text == "":
        return Found("none", "unspecified", f"only Table 1 has numbers for Spleen: {in_table}")
    return reproduced_if(in_text == in_table, in_text, "list of the section and Table 1")


@check
def medsaga_beats_samed_mean(claim: Claim) -> Found:
    ours, samed = (table("medsaga_table1")[f"{m}_dice"].mean() for m in ("medsaga", "samed"))
    measured = f"{ours:.4f} against {samed:.4f}"
    return reproduced_if(ours > samed, measured, f"unweighted means differ by {ours - samed:.4f}")


def _almost_every(claim: Claim, wins: int, settings: int, measured: str) -> Found:
    share = wins / settings
    reason = f"{100 * share:.0f} % of the settings"
    if share >= claim.tolerance or share < 2 / 3:
        return reproduced_if(share >= claim.tolerance, measured, reason)
    return Found(measured, "unspecified", f"{reason}: a majority; almost every has no number")


@check
def medsaga_beats_samed_dice(claim: Claim) -> Found:
    lead = _lead("samed")
    return _almost_every(claim, int((lead > 0).sum()), len(lead), _counted(lead))


@check
def medsaga_beats_samed_hd95(claim: Claim) -> Found:
    lead = _lead("samed", metric="hd95")
    return _almost_every(claim, int((lead < 0).sum()), len(lead), _counted(lead))


@check
def medsaga_beats_samed_each_set(claim: Claim) -> Found:
    wins = {data_set: (_lead("samed", data_set) > 0) for data_set in SETS}
    measured = ", ".join(f"{name} {w.sum()} of {len(w)}" for name, w in wins.items())
    few = [name for name, won in wins.items() if won.mean() <= 0.5]
    reason = f"SAMed has most settings of {', '.join(few)}" if few else "most settings of each set"
    return reproduced_if(not few, measured, reason)


def _almost_every_dice(claim: Claim, data_set: str) -> Found:
    lead = _lead("samed", data_set)
    return _almost_every(claim, int((lead > 0).sum()), len(lead), _counted(lead))


@check
def medsaga_beats_samed_chest(claim: Claim) -> Found:
    return _almost_every_dice(claim, "Chest-Xray")


@check
def medsaga_beats_samed_isles(claim: Claim) -> Found:
    return _almost_every_dice(claim, "ISLES")


@check
def medsaga_beats_samed_amos(claim: Claim) -> Found:
    return _almost_every_dice(claim, "AMOS")


def _fewest(metric: str) -> dict[str, float]:
    """Return the difference to DAE-Former with the fewest images of each data set."""
    return {name: _lead("dae_former", name, metric).iloc[0] for name in SETS}


@check
def medsaga_beats_dae_few(claim: Claim) -> Found:
    lead = _fewest("dice")
    amos = lead.pop("AMOS")
    reason = f"AMOS, which the sentence does not name, has {amos:+.3f}"
    return reproduced_if(min(lead.values()) > 0, listed(list(lead.values()), 3), reason)


@check
def medsaga_beats_dae_few_hd95(claim: Claim) -> Found:
    lead = _fewest("hd95")
    amos = lead.pop("AMOS")
    reason = f"AMOS, which the sentence does not name, has {amos:+.3f}"
    return reproduced_if(max(lead.values()) < 0, listed(list(lead.values()), 3), reason)


@check
def medsaga_beats_dae_hd95(claim: Claim) -> Found:
    lead = _lead("dae_former", metric="hd95")
    return reproduced_if((lead < 0).mean() > 0.5, _counted(lead), f"{len(lead)} settings")


@check
def medsaga_amos_crossing(claim: Claim) -> Found:
    lead = _lead("dae_former", "AMOS")
    reason = "behind with few images and ahead with the most, so it is rightly not named"
    return reproduced_if(lead.iloc[0] < 0, listed(lead, 3), reason)


def _slight_drop(claim: Claim, data_set: str) -> Found:
    lead = _lead("dae_former", data_set)
    last = lead.iloc[-1]
    holds = -claim.tolerance <= last < 0
    return reproduced_if(holds, f"{last:+.3f}", f"all sizes: {listed(lead, 3)}")


@check
def medsaga_drop_chest(claim: Claim) -> Found:
    return _slight_drop(claim, "Chest-Xray")


@check
def medsaga_drop_spleen(claim: Claim) -> Found:
    return _slight_drop(claim, "Spleen")


@check
def medsaga_drop_isles(claim: Claim) -> Found:
    return _slight_drop(claim, "ISLES")


@check
def medsaga_mean_vs_dae(claim: Claim) -> Found:
    ours, dae = (table("medsaga_table1")[f"{m}_dice"].mean() for m in ("medsaga", "dae_former"))
    measured = f"{ours:.4f} against {dae:.4f}"
    return reproduced_if(
        abs(ours - dae) <= claim.tolerance, measured, _counted(_lead("dae_former"))
    )


@check
def medsaga_comparable_dice(claim: Claim) -> Found:
    dice = table("medsaga_table1").filter(like="dice")
    behind = (dice.max(axis=1) - dice["medsaga_dice"]).round(3)
    near = int((behind <= claim.tolerance).sum())
    reason = f"at most {behind.max():.3f} behind the best; best itself in {(behind == 0).sum()}"
    return reproduced_if(near > len(dice) / 2, f"{near} of {len(dice)} settings", reason)


@check
def medsaga_comparable_hd95(claim: Claim) -> Found:
    distances = table("medsaga_table1").filter(like="hd95")
    lowest = int((distances["medsaga_hd95"] == distances.min(axis=1)).sum())
    measured = f"{lowest} of {len(distances)} settings"
    return reproduced_if(lowest > len(distances) / 2, measured, "lowest of three, ties included")


@check
def medsaga_best_dice_count(claim: Claim) -> Found:
    dice = table("medsaga_table1").filter(like="dice")
    first = {m: int((dice[f"{m}_dice"] == dice.max(axis=1)).sum()) for m in NAMES}
    measured = ", ".join(f"{NAMES[m]} {count}" for m, count in first.items())
    holds = first["medsaga"] > max(first["samed"], first["dae_former"])
    return reproduced_if(holds, measured, f"first places among {len(dice)} settings")


def _wilcoxon(other: str) -> float:
    rows = table("medsaga_table1")
    return float(stats.wilcoxon(rows["medsaga_dice"], rows[f"{other}_dice"]).pvalue)


@check
def medsaga_samed_significant(claim: Claim) -> Found:
    p = _wilcoxon("samed")
    reason = "the 22 settings share data, so they are not independent and p is too small"
    return reproduced_if(p < claim.tolerance, f"p = {p:.4f}", reason)


@check
def medsaga_dae_not_different(claim: Claim) -> Found:
    p = _wilcoxon("dae_former")
    return reproduced_if(p > claim.tolerance, f"p = {p:.2f}", "no difference is detected")


@check
def medsaga_chest_monotone(claim: Claim) -> Found:
    steps = _rows("Chest-Xray").filter(like="dice").diff().dropna()
    rising = int((steps > 0).sum().sum())
    return reproduced_if(
        rising == steps.size, f"{rising} of {steps.size} steps rise", "the curves of three methods"
    )


def _gain_after_500(method: str) -> float:
    dice = table("medsaga_table1")[f"{method}_dice"]
    return float(dice["Chest-Xray 1800"] - dice["Chest-Xray 500"])


@check
def medsaga_plateau_medsaga(claim: Claim) -> Found:
    gain, dice = _gain_after_500("medsaga"), _rows("Chest-Xray")["medsaga_dice"]
    share = 1 - gain / (dice.iloc[-1] - dice.iloc[0])
    reason = f"{100 * share:.0f} % of the rise lies before 500 images"
    return reproduced_if(gain <= claim.tolerance + 1e-9, f"{gain:.3f}", reason)


@check
def medsaga_plateau_most(claim: Claim) -> Found:
    gains = {method: _gain_after_500(method) for method in NAMES}
    measured = ", ".join(f"{NAMES[m]} {gain:.3f}" for m, gain in gains.items())
    if sum(gain <= claim.tolerance + 1e-9 for gain in gains.values()) >= 2:
        return Found(measured, "reproduced", "two of three methods are flat")
    reason = "the paper defines no plateau: the curves look flat on a linear axis of images"
    return Found(measured, "unspecified", reason)


@check
def medsaga_plateau_general(claim: Claim) -> Found:
    last = {name: _rows(name)["medsaga_dice"].diff().iloc[-1] for name in SETS}
    measured = ", ".join(f"{name} {step:+.3f}" for name, step in last.items())
    rising = [name for name, step in last.items() if step > claim.tolerance]
    if not rising:
        return Found(measured, "reproduced", "the last step is small on each data set")
    reason = f"the sentence rests on Fig. 2, which shows Chest; {', '.join(rising)} still rise"
    return Found(measured, "not comparable", reason)


@check
def medsaga_more_images_help(claim: Claim) -> Found:
    dice = table("medsaga_table1").filter(like="dice")
    steps = pd.concat([_rows(name)[dice.columns].diff().dropna() for name in SETS]).round(3).stack()
    worst = steps.min()
    measured = f"{(steps >= 0).sum()} of {len(steps)} steps raise or keep Dice"
    return reproduced_if(worst >= -claim.tolerance, measured, f"the largest fall is {worst:.3f}")


@check
def medsaga_close_to_entire(claim: Claim) -> Found:
    most = _rows("Chest-Xray").index.str.split().str[-1].astype(int).max()
    share = 100 * most / figure("medsaga_text", "4.1 ChestX-ray8 images")
    if share < 100:
        return Found(f"{share:.2f} %", "unspecified", "no run uses the entire data set")
    return Found(f"{share:.0f} %", "reproduced", "the largest setting is the entire data set")


def _largest(data_set: str) -> int:
    return max(int(name.split()[-1]) for name in _rows(data_set).index)


@check
def medsaga_isles_few_shot(claim: Claim) -> Found:
    share = _largest("ISLES") / figure("medsaga_text", "4.1 ISLES slices")
    reason = "the largest setting is all slices there are; few-shot has no definition in the paper"
    if share < 1:
        return Found(f"{100 * share:.0f} %", "reproduced", "a part of the slices")
    return Found(f"{100 * share:.0f} %", "not comparable", reason)


@check
def medsaga_isles_maximum(claim: Claim) -> Found:
    most = _largest("ISLES")
    slices = figure("medsaga_text", "4.1 ISLES slices")
    return reproduced_if(most == slices == claim.value, f"{most:,}", "last row of Table 1")


@check
def medsaga_amos_10300(claim: Claim) -> Found:
    most, slices = _largest("AMOS"), figure("medsaga_text", "4.1 AMOS slices")
    holds = most == 7000 and most < slices == claim.value
    return reproduced_if(holds, f"{most:,}", f"{100 * most / slices:.1f} % of {slices:,.0f} slices")


@check
def medsaga_chest_fraction(claim: Claim) -> Found:
    share = 100 * _largest("Chest-Xray") / figure("medsaga_text", "4.1 ChestX-ray8 images")
    return reproduced_if(share <= claim.tolerance, f"{share:.2f} %", "a small part of the data set")


def _same_to_last_digit(cells: list[str], what: str) -> Found:
    """Return whether cells differ; equal ones may be a coincidence, which the runs would tell."""
    if len(set(cells)) == len(cells):
        return Found(", ".join(cells), "reproduced", f"{what} differ")
    reason = f"{what} are equal to the last digit: a coincidence or a copied cell"
    return Found(", ".join(cells), "unspecified", reason)


@check
def medsaga_isles2000_same_hd95(claim: Claim) -> Found:
    row = printed("medsaga_table1").loc["ISLES 2000"]
    return _same_to_last_digit([row["medsaga_hd95"], row["samed_hd95"]], "two methods")


@check
def medsaga_spleen800_samed_hd95(claim: Claim) -> Found:
    before, last = _rows("Spleen").iloc[-2:][["samed_dice", "samed_hd95"]].to_numpy()
    ratio = last[1] / before[1]
    measured = f"{ratio:.1f} times the row before"
    if ratio <= claim.tolerance:
        return Found(measured, "reproduced", "in line with the other rows")
    reason = (
        f"Dice rises from {before[0]:.3f} to {last[0]:.3f}: an outlier, but no proof of an error"
    )
    return Found(measured, "unspecified", reason)


def _from_table1(row: str, column: str) -> str:
    return str(printed("medsaga_table1").at[row, column])


@check
def medsaga_table2_vs_table1(claim: Claim) -> Found:
    equal = total = 0
    for name, row in printed("medsaga_table2").iterrows():
        for metric in ("dice", "hd95"):
            equal += row[f"with_warmup_mean_{metric}"] == _from_table1(
                str(name), f"medsaga_{metric}"
            )
            total += 1
    return reproduced_if(
        equal == total == claim.value, f"{equal} of {total} equal", "the cells of Table 1"
    )


def _by_warmup(metric: str) -> pd.Series:
    rows = table("medsaga_table2")
    return rows[f"with_warmup_mean_{metric}"] - rows[f"without_warmup_mean_{metric}"]


@check
def medsaga_warmup_dice(claim: Claim) -> Found:
    gain = _by_warmup("dice")
    reason = "one run for each number, so the gain of 0.003 on AMOS may be chance"
    return reproduced_if((gain > 0).all(), listed(gain, 3), reason)


@check
def medsaga_warmup_hd95(claim: Claim) -> Found:
    gain = _by_warmup("hd95")
    return reproduced_if((gain < 0).all(), listed(gain, 3), "one run for each number")


def _units_apart(one: str, other: str) -> float:
    """Return the distance of two printed numbers in units of the last digit."""
    return round(abs(float(one) - float(other)) / (2 * half_unit(one)), 6)


@check
def medsaga_table3_vs_table1(claim: Claim) -> Found:
    rows = printed("medsaga_table3")
    apart = {
        f"{name} {column}": _units_apart(rows.at[name, column], _from_table1(name, column))
        for name in rows.index
        for column in ("medsaga_dice", "medsaga_hd95")
    }
    wrong = [name for name, units in apart.items() if units > claim.tolerance]
    measured = f"{sum(units == 0 for units in apart.values())} of {len(apart)} equal"
    return reproduced_if(not wrong, measured, f"more than rounding: {', '.join(wrong) or 'none'}")


def _repeated(claim: Claim, row: str, column: str) -> Found:
    here, there = printed("medsaga_table3").at[row, column], _from_table1(row, column)
    holds = _units_apart(here, there) <= 1
    metric = column.removeprefix("medsaga_")
    others = [
        NAMES[m] for m in ("samed", "dae_former") if _from_table1(row, f"{m}_{metric}") == here
    ]
    reason = f"by Table 1; {here} is {others[0]}'s there" if others else "by Table 1"
    return reproduced_if(holds, there, reason)


@check
def medsaga_table3_chest1800(claim: Claim) -> Found:
    return _repeated(claim, "Chest-Xray 1800", "medsaga_dice")


@check
def medsaga_table3_amos7000(claim: Claim) -> Found:
    return _repeated(claim, "AMOS 7000", "medsaga_dice")


@check
def medsaga_table3_amos500_hd95(claim: Claim) -> Found:
    return _repeated(claim, "AMOS 500", "medsaga_hd95")


@check
def medsaga_best_variant_dice(claim: Claim) -> Found:
    rows = table("medsaga_table3")
    ours, v1 = rows["medsaga_dice"].mean(), rows["v1_dice"].mean()
    behind = ", ".join(rows.index[rows["medsaga_dice"] < rows["v1_dice"]])
    reason = f"v1 is ahead at {behind}" if behind else "ahead in every row"
    return reproduced_if(ours > v1, f"{ours:.3f} against {v1:.3f}", reason)


@check
def medsaga_best_variant_hd95(claim: Claim) -> Found:
    distances = table("medsaga_table3").filter(like="hd95").to_numpy()
    ordered = int((np.diff(distances, axis=1) >= 0).all(axis=1).sum())
    return reproduced_if(
        ordered == len(distances),
        f"{ordered} of {len(distances)} rows",
        "the variants' HD95 in order",
    )


@check
def medsaga_v2_worst(claim: Claim) -> Found:
    rows = table("medsaga_table3")
    with_dice = rows.dropna(subset="v2_dice")
    lowest = with_dice["v2_dice"] < with_dice[["medsaga_dice", "v1_dice"]].min(axis=1)
    highest = rows["v2_hd95"] > rows[["medsaga_hd95", "v1_hd95"]].max(axis=1)
    measured = f"Dice lowest in {lowest.sum()}, HD95 highest in {highest.sum()} rows"
    return reproduced_if(lowest.all() and highest.all(), measured, f"{len(lowest)} Dice printed")


@check
def medsaga_v1_isles3200(claim: Claim) -> Found:
    row = printed("medsaga_table3").loc["ISLES 3200"]
    pairs = [f"{row[f'{m}_dice']} and {row[f'{m}_hd95']}" for m in ("medsaga", "v1")]
    return _same_to_last_digit(pairs, "both metrics of MedSAGa and v1")


@check
def medsaga_v2_same_hd95(claim: Claim) -> Found:
    pairs = [_rows(name, "medsaga_table3")["v2_hd95"] for name in SETS]
    same = sum(pair.nunique() == 1 for pair in pairs)
    if not same:
        return Found("0 of 4 pairs equal", "reproduced", "each number of images has its own HD95")
    reason = "equal with up to 36 times the images, as if nothing was learned; not explained"
    return Found(f"{same} of {len(pairs)} pairs equal", "unspecified", reason)


@check
def medsaga_v2_dice_printed(claim: Claim) -> Found:
    cells = printed("medsaga_table3")["v2_dice"]
    filled = int((cells != "").sum())
    if filled == len(cells):
        return Found(f"{filled} cells", "reproduced", "every row has its Dice")
    reason = "one Dice stands beside two rows of ISLES, Spleen and AMOS: merged, or lost"
    return Found(f"{filled} of {len(cells)} cells", "unspecified", reason)


def _by_source(claim: Claim, *pairs: tuple[str, str]) -> Found:
    """Compare numbers of section 4.1 with those of the data set's own paper."""
    published = [text_of("medsaga_text", ours) for ours, _ in pairs]
    there = [text_of("facts", name) for _, name in pairs]
    origin = str(printed("facts").at[pairs[0][1], "source"])
    return reproduced_if(published == there, "; ".join(there), origin)


@check
def medsaga_ablation_chest_only(claim: Claim) -> Found:
    sets = printed("medsaga_table3")["data_set"].unique()
    return reproduced_if(list(sets) == ["Chest-Xray"], ", ".join(sets), "rows of Table 3")


@check
def medsaga_amos_organs(claim: Claim) -> Found:
    return _by_source(claim, ("4.1 AMOS organs", "AMOS organs"))


@check
def medsaga_amos_reversed(claim: Claim) -> Found:
    pairs = [(f"4.1 AMOS {kind} scans", f"AMOS {kind} scans") for kind in ("MRI", "CT")]
    return _by_source(claim, *pairs)


@check
def medsaga_amos_total(claim: Claim) -> Found:
    kinds = ("MRI", "CT")
    published = sum(figure("medsaga_text", f"4.1 AMOS {kind} scans") for kind in kinds)
    there = sum(figure("facts", f"AMOS {kind} scans") for kind in kinds)
    return reproduced_if(published == there == claim.value, f"{there:.0f}", "Ji et al. 2022")


@check
def medsaga_chest_counts(claim: Claim) -> Found:
    names = ("images", "patients", "labels")
    return _by_source(claim, *((f"4.1 ChestX-ray8 {n}", f"ChestX-ray8 {n}") for n in names))


@check
def medsaga_isles_400(claim: Claim) -> Found:
    found = _by_source(claim, ("4.1 ISLES images", "ISLES cases"))
    usable = text_of("facts", "ISLES training cases")
    return found._replace(reason=f"{found.reason}; only {usable} of them have public masks")


@check
def medsaga_spleen_61(claim: Claim) -> Found:
    found = _by_source(claim, ("4.1 Spleen volumes", "Spleen volumes"))
    usable = text_of("facts", "Spleen volumes with masks")
    return found._replace(reason=f"{found.reason}; {usable} of them have masks")


@check
def medsaga_sam_data(claim: Claim) -> Found:
    images, masks = (figure("facts", f"SAM {what}") for what in ("images", "masks"))
    holds = images == figure("medsaga_text", "2 SAM images")
    holds &= int(masks) == figure("medsaga_text", "2 SAM masks")
    return reproduced_if(holds, f"{images:.0f} million, {masks} billion", "Kirillov et al. 2023")


@check
def medsaga_loss_weights(claim: Claim) -> Found:
    weights = [figure("medsaga_text", f"4.2 weight of {w}") for w in ("cross-entropy", "Dice")]
    return reproduced_if(sum(weights) == 1, f"{sum(weights):g}", "equation 4 asks for 1")


@check
def medsaga_525_arithmetic(claim: Claim) -> Found:
    part, whole = (figure("medsaga_text", f"4.2 {n}") for n in ("size of vit_b", "original size"))
    share = 100 * part / whole
    return reproduced_if(rounds_to(share, claim.published), f"{share:.3f} %", "18.81 / 358")
