"""What two searches find on a surface with a known best: one TPE over both strategies, or in turn.

No network trains: a configuration's accuracy is a formula plus noise, and one strategy's best is
truly ahead. Printed for each search and for each strategy that leads: the trials of the one
behind, how often TPE's good set has none of them when the model draws one, the difference of the
two best values seen, and how far the configurations that were chosen lie below the true best.

    python benchmarks/search.py [--trials 100] [--studies 20] [--gap 2] [--noise 1.2]
"""

import argparse
import math
import warnings

import numpy as np
import optuna
from optuna.samplers import TPESampler

from search_spaces import SearchSpace, load_space
from studies.database.trials import read_trials
from studies.search.suggest import SearchPlan, fixed_sampler, opening, suggest, suggest_next
from transfer.backbones.catalog import BACKBONES

STRATEGIES = ("feature_extraction", "fine_tuning")
# Points below the best backbone, in the space's order; where each learning rate is best.
BACKBONE_POINTS = (0.0, 0.8, 1.6, 2.4)
BEST_RATE = {"feature_extraction": 10**-2.5, "fine_tuning": 10**-4.0}
BEST_SHARE = 0.7
N_STARTUP = 10  # of TPE: so many trials are drawn at random


def points_lost(fields: dict[str, object], space: SearchSpace) -> float:
    """Points of accuracy below the best configuration of the same strategy."""
    strategy, backbone = str(fields["strategy"]), str(fields["backbone"])
    lost = BACKBONE_POINTS[space.backbones.index(backbone)]
    lost += 2.0 * math.log10(float(fields["learning_rate"]) / BEST_RATE[strategy]) ** 2
    lost += 0.3 * abs(math.log2(int(fields["batch_size"]) / 16))
    if strategy == "fine_tuning":
        share = int(fields["num_unfrozen_layers"]) / space.depths[backbone]
        lost += 6.0 * (share - BEST_SHARE) ** 2
    return lost


def search(
    plan: SearchPlan, leader: str, n_trials: int, gap: float, noise: float, *, in_turn: bool
) -> dict[str, float]:
    """One study; returns what is printed of it."""
    study = optuna.create_study(direction="maximize")
    rng = np.random.default_rng(plan.seed)
    behind = next(s for s in STRATEGIES if s != leader)
    seen: dict[str, list[tuple[float, float]]] = {s: [] for s in STRATEGIES}
    empty: list[bool] = []
    for number in range(n_trials):
        if in_turn:
            suggestion = suggest_next(study, plan, read_trials(study), worker="")
            trial, fields = suggestion.trial, suggestion.fields
        else:
            is_first = number < len(plan.opening)
            study.sampler = (
                fixed_sampler(plan.opening[number], number)
                if is_first
                else TPESampler(seed=1000 * plan.seed + number)
            )
            trial = study.ask()
            fields = suggest(trial, plan.space)
        strategy = str(fields["strategy"])
        if strategy == behind and number >= max(N_STARTUP, len(plan.opening)):
            model = {strategy: seen[strategy]} if in_turn else seen
            empty.append(behind not in good_set(model))
        lost = points_lost(fields, plan.space)
        value = 90.0 + gap * (strategy == leader) - lost + noise * rng.standard_normal()
        seen[strategy].append((value, lost))
        study.tell(trial, value)
    best = {s: max(seen[s]) for s in STRATEGIES}
    return {
        "trials behind": float(len(seen[behind])),
        "good set empty": float(np.mean(empty)),
        "difference": best[leader][0] - best[behind][0],
        "lost, leader": best[leader][1],
        "lost, behind": best[behind][1],
    }


def good_set(seen: dict[str, list[tuple[float, float]]]) -> set[str]:
    """Strategies among the best tenth, which TPE calls good (Optuna's ``default_gamma``)."""
    values = sorted(((v, s) for s in seen for v, _ in seen[s]), reverse=True)
    return {s for _, s in values[: min(math.ceil(0.1 * len(values)), 25)]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--studies", type=int, default=20)
    parser.add_argument("--gap", type=float, default=2.0, help="points")
    parser.add_argument("--noise", type=float, default=1.2, help="standard deviation in points")
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", module="optuna")
    space = load_space("default", {name: spec.depth for name, spec in BACKBONES.items()})
    print(f"{args.studies} studies of {args.trials} trials, true difference {args.gap} points")
    for leader in STRATEGIES:
        for in_turn in (False, True):
            found = [
                search(
                    SearchPlan(space=space, opening=opening(space), seed=seed, sampler="tpe"),
                    leader,
                    args.trials,
                    args.gap,
                    args.noise,
                    in_turn=in_turn,
                )
                for seed in range(args.studies)
            ]
            parts = [
                f"{key} {np.mean(values):.2f} +- {np.std(values) / math.sqrt(len(values)):.2f}"
                for key in found[0]
                for values in [[f[key] for f in found]]
            ]
            how = "in turn" if in_turn else "one TPE"
            print(f"{leader} leads, {how}: {', '.join(parts)}", flush=True)


if __name__ == "__main__":
    main()
