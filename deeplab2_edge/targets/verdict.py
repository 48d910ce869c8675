"""What a check says of each op, and of the network."""

import dataclasses
import enum
from collections.abc import Callable, Sequence
from itertools import groupby

from deeplab2_edge.targets.cost import multiply_adds
from deeplab2_edge.tflite_file.graph import Graph, Op


class Verdict(enum.Enum):
    """Says where an op will run.

    One that depends would map, but stands behind one of unknown fate; one behind the
    cut would map, but stands behind one that falls back.
    """

    MAPS = "maps"
    UNKNOWN = "unknown"
    DEPENDS = "depends"
    FALLS_BACK = "falls back"
    BEHIND = "behind the cut"


@dataclasses.dataclass(frozen=True)
class Judgement:
    """Is what a rule says of one op.

    Attributes:
        verdict: Where it will run.
        rule: Short name of the rule that decides; empty for an op that maps.
        reason: In words.
        advice: What would help; may be empty.
    """

    verdict: Verdict = Verdict.MAPS
    rule: str = ""
    reason: str = ""
    advice: str = ""


MAPS = Judgement()


def falls_back(rule: str, reason: str, advice: str = "") -> Judgement:
    """Says that an op runs on the CPU."""
    return Judgement(Verdict.FALLS_BACK, rule, reason, advice)


def unknown(rule: str, reason: str, advice: str = "") -> Judgement:
    """Says that only the target's own tool or the device can tell."""
    return Judgement(Verdict.UNKNOWN, rule, reason, advice)


# Judges an op of a graph.
Rules = Callable[[Op], Judgement]


@dataclasses.dataclass(frozen=True, eq=False)
class JudgedOp:
    """Is an op with what is said of it."""

    op: Op
    judgement: Judgement
    multiply_adds: int

    @property
    def verdict(self) -> Verdict:
        """Where it will run."""
        return self.judgement.verdict


@dataclasses.dataclass(frozen=True, eq=False)
class Check:
    """Is what is predicted of a network on a target.

    Attributes:
        target: Its name.
        graph: The network.
        ops: All ops, in the order of execution.
        notes: What the user should know about the whole network.
        first_cut: Index of the op at which the only partition ends, if it does.
    """

    target: str
    graph: Graph
    ops: tuple[JudgedOp, ...]
    notes: tuple[str, ...] = ()
    first_cut: int | None = None

    @property
    def num_mapped(self) -> int:
        """Number of ops that surely map."""
        return self._count(Verdict.MAPS)

    @property
    def num_unknown(self) -> int:
        """Number of ops of which only the target's own tool knows."""
        return self._count(Verdict.UNKNOWN)

    @property
    def findings(self) -> tuple[JudgedOp, ...]:
        """Ops that do not surely map, without those behind a cut."""
        others = (Verdict.UNKNOWN, Verdict.FALLS_BACK)
        return tuple(judged for judged in self.ops if judged.verdict in others)

    @property
    def inner_findings(self) -> tuple[JudgedOp, ...]:
        """Findings with mapped ops before and behind them: those divide the network."""
        places = [
            judged.op.index
            for judged in self.ops
            if judged.verdict is Verdict.MAPS and judged.op.computed
        ]
        if not places:
            return self.findings
        first, last = places[0], places[-1]
        return tuple(j for j in self.findings if first < j.op.index < last)

    @property
    def is_clean(self) -> bool:
        """Whether the target surely takes all between the ends of the network.

        What is unknown leaves a check clean: it is no fault that could be mended.
        """
        if self.first_cut is not None or not self.num_mapped + self.num_unknown:
            return False
        return all(j.verdict is Verdict.UNKNOWN for j in self.inner_findings)

    @property
    def total_multiply_adds(self) -> int:
        """Of the whole network."""
        return sum(judged.multiply_adds for judged in self.ops)

    @property
    def mapped_share(self) -> float:
        """Share of the multiply-adds in ops that surely map, 0 to 1."""
        return self._share((Verdict.MAPS,))

    @property
    def possible_share(self) -> float:
        """The same with the ops whose fate is unknown, and what depends on them."""
        return self._share((Verdict.MAPS, Verdict.UNKNOWN, Verdict.DEPENDS))

    @property
    def num_partitions(self) -> int:
        """How often, at most, the target is entered: runs of ops that map."""
        on_target = (judged.verdict is not Verdict.FALLS_BACK for judged in self.ops)
        return sum(is_mapped for is_mapped, _ in groupby(on_target))

    def _count(self, verdict: Verdict) -> int:
        return sum(judged.verdict is verdict for judged in self.ops)

    def _share(self, verdicts: Sequence[Verdict]) -> float:
        total = self.total_multiply_adds
        if not total:  # nothing to compute: the share of ops
            total = max(len(self.ops), 1)
            return sum(judged.verdict in verdicts for judged in self.ops) / total
        mapped = sum(j.multiply_adds for j in self.ops if j.verdict in verdicts)
        return mapped / total


def judge(graph: Graph, rules: Rules) -> list[JudgedOp]:
    """Applies the rules to every op that has what rules look at."""

    def verdict(op: Op) -> Judgement:
        if not op.inputs or not op.outputs or op.inputs[0] is None:
            return falls_back("inputs", "without inputs or results")
        return rules(op)

    return [JudgedOp(op, verdict(op), multiply_adds(op)) for op in graph.ops]
