"""Which block may take the place of another in a running flow, and how it gets ready for it.

The newcomer is checked against the flow that runs, built, and has to decide a frame that came,
all beside the stream; what fails is told, and nothing has changed. Only then the old block
answers what it holds, and the newcomer takes over between two frames. It starts without a past.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from pipeline import catalogue
from pipeline.block import Block, Context, Reframe, Sink, Source, make
from pipeline.errors import ConnectError, FlowError, KalvitError, WeightsError
from pipeline.flow import Flow
from pipeline.flow_parts import BlockSpec
from pipeline.instance import Instance
from pipeline.plan import Plan, Planned
from pipeline.settings import parse_setting
from pipeline.swaps import Place, Use, Uses
from pipeline.takeovers import Latest
from pipeline.weights import Weights
from pipeline.weights_input import WeightsInput

_KINDS = (
    (Source, "starts a stream"), (Sink, "ends a branch"), (Reframe, "cuts frames anew"),
)  # fmt: skip


def check_kind(who: str, cls: type[Block]) -> None:
    """FlowError where a block of this class can neither be replaced nor replace another."""
    for base, what in _KINDS:
        if issubclass(cls, base):
            raise FlowError(
                f"{who} {what}; only a block that answers each frame can be replaced, and only by "
                "another one"
            )


def replaceable(name: str, cls: type[Block], use: str) -> type[Block]:
    """The class of `use`; FlowError where it cannot take the place of this block."""
    other = catalogue.find(use)
    check_kind(name, cls)
    check_kind(use, other)
    return other


def unwritten(spec: BlockSpec, use: str, needed: set[str]) -> str:
    """A needed field that another block would not write in the place of this one, or ""."""
    signature = catalogue.find(use).signature()
    renames = spec.replaced(use, signature, {}).writes
    written = {renames.get(name, name) for name in signature.writes}
    return min(needed - written, default="")


def asked(plan: Plan, name: str, serving: Use | None, use: str, settings: Sequence[str]) -> Use:
    """What is to serve: parameters that are not set keep their values.

    They are those of the block that serves, then those of the flow, where the new block has a
    parameter of the same name; others have their default.

    serving   what has replaced the block of the flow before
    settings  texts such as "taps=[1.0, 0.5]"
    """
    cls = replaceable(name, plan.blocks[name].cls, use)
    flow = Flow.from_dict(plan.flow.to_dict())
    spec = flow.blocks[name]
    kept = {**spec.params, **(serving.params if serving else {})}
    known = cls.params().names
    kept = {parameter: value for parameter, value in kept.items() if parameter in known}
    flow.blocks[name] = spec.replaced(use, cls.signature(), kept)
    for text in settings:
        flow.set(*parse_setting(text if text.startswith(f"{name}.") else f"{name}.{text}"))
    return Use(use, flow.blocks[name].params)


def planned_as(plan: Plan, name: str, use: Use) -> Planned:
    """The plan of the block that shall serve in the place of `name`; KalvitError says why not."""
    before = plan.blocks[name]
    cls = replaceable(name, before.cls, use.use)
    flow = Flow.from_dict(plan.flow.to_dict())
    spec = flow.blocks[name]
    needed = {field for edge in plan.children(name) for field in plan.blocks[edge.target].needed}
    needed &= {field for field, _ in before.writes}
    if field := unwritten(spec, use.use, needed):
        raise ConnectError(f"{use.use} writes no {field!r}, which blocks after {name} read")
    flow.blocks[name] = spec.replaced(use.use, cls.signature(), use.params)
    if not cls.takes_weights():
        flow.edges = [e for e in flow.edges if e.kind != "weights" or e.target != name]
    after = flow.check().blocks[name]
    types = {field: declared.type for field, declared in after.writes}
    for field, declared in before.writes:
        if field in needed and types[field] != declared.type:
            raise ConnectError(
                f"{use.use} writes {field!r} as {types[field]}, but in this flow it is "
                f"{declared.type}"
            )
    there = _present(plan, name)
    for _, field in after.reads:
        if field not in there:
            raise ConnectError(
                f"{use.use} reads {field!r}, which the edges before {name} do not carry; "
                f'alternatives = ["{use.use}"] in [blocks.{name}] makes them'
            )
    if cls.signature().delayed:
        for edge in plan.flow.edges:
            if isinstance(edge.delay, int) and edge.source in plan.below(name):
                raise ConnectError(
                    f"{use.use} answers later, but {edge.target} waits for the weights after "
                    f"frames that have to pass {name} first"
                )
    return after


def planned_all(plan: Plan, name: str, uses: Uses) -> dict[Place, tuple[Planned, Use]]:
    """The plans of all that served in the place of `name` in another run."""
    made: list[tuple[Planned, Use]] = []
    found = {}
    for place, use in uses.items():
        known = next((item for item in made if item[1] == use), None)
        if known is None:
            known = planned_as(plan, name, use), use
            made.append(known)
        found[place] = known
    return found


def _present(plan: Plan, name: str) -> set[str]:
    """The fields of the frames that reach a block in its worker."""
    edge = plan.parent(name)
    if edge is None:
        return set()
    source = plan.blocks[edge.source]
    if source.worker != plan.blocks[name].worker:
        return set(plan.carried(edge))
    written = {field for field, _ in source.writes}
    return written if isinstance(source.block, Reframe) else written | _present(plan, source.name)


class Newcomer(threading.Thread):
    """Gets a block ready beside the stream; then `planned` is there, or `error` says why not.

    A block that takes weights begins with those of a `model` in `settings`, or else with the first
    that fit it: the newest, the last ones of other names, those of the `model` it has; or none.

    settings   texts such as "taps=[1.0, 0.5]"
    serving    what has replaced the block of the flow before
    latest     a frame that the block will be able to decide, or it stays out
    context    of the instance that serves the stream of this frame
    feedback   where weights of the block come in
    """

    def __init__(
        self,
        plan: Plan,
        name: str,
        use: str,
        settings: Sequence[str],
        *,
        serving: Use | None,
        latest: Latest,
        context: Context,
        feedback: WeightsInput | None,
    ) -> None:
        super().__init__(daemon=True)  # a build that hangs does not keep the worker alive
        self.block = name
        self.with_model = any(text.rpartition(".")[2].startswith("model=") for text in settings)
        self.use: Use | None = None
        self.planned: Planned | None = None
        self.error = ""
        self._plan, self._asked = plan, (serving, use, settings)
        self._latest, self._context = latest, context
        self._delay = None if feedback is None else feedback.delay
        self._newest = None if feedback is None else feedback.newest
        self._past = [] if feedback is None else feedback.past
        self._weights: Weights | None = None

    def run(self) -> None:
        """Get ready; called by `start`."""
        try:
            use = asked(self._plan, self.block, *self._asked)
            planned = planned_as(self._plan, self.block, use)
            self._prove(planned)
            self.use, self.planned = use, planned
        except KalvitError as error:
            self.error = str(error)
        except Exception as error:
            self.error = f"{self._asked[1]} raised {type(error).__name__}: {error}"

    def first_weights(self, newest: Weights | None) -> Weights | None:
        """The weights with which it begins, given the newest now."""
        return newest if self._weights is self._newest else self._weights

    def _prove(self, planned: Planned) -> None:
        """Decide a frame, so that kernels are compiled, and what fails does so now."""
        refusal = None
        for weights in self._candidates(planned):
            try:
                self._decide(planned, weights)
            except WeightsError as error:
                refusal = refusal or error
            else:
                self._weights = weights
                return
        if refusal is not None:
            raise refusal

    def _candidates(self, planned: Planned) -> list[Weights | None]:
        if not planned.cls.takes_weights():
            return [None]
        if isinstance(self._delay, int):
            if self.with_model:
                raise WeightsError(
                    f"{self.block} decides each frame with the weights that its trainer emitted "
                    f"{self._delay} frames before; leave `model` out"
                )
            return [self._newest]
        if self.with_model:
            return [planned.weights]
        known = [self._newest, *self._past, planned.weights]
        return [*(weights for weights in known if weights is not None), None]

    def _decide(self, planned: Planned, weights: Weights | None) -> None:
        block = make(planned.cls, planned.block.values(), self._context)
        instance = Instance(block, planned.port())
        if weights is not None:
            block.take(weights)
        frame, fields = self._latest
        frame = frame._replace(fields=dict(fields))
        if instance.delayed:
            instance.answer(frame)
            instance.finish()
        else:
            instance.step(frame, dict(fields))


__all__ = [
    "Newcomer",
    "asked",
    "check_kind",
    "planned_all",
    "planned_as",
    "replaceable",
    "unwritten",
]
