"""One run of `fit`: a chain of steps and of hooks of callbacks.

``optimizer.progress`` always says how far it is. Whatever a checkpoint is written from (any hook, an interruption, the end), a
resumed run goes on with the next link of the chain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

from fastdrop import _display, _validate, rng
from fastdrop._files import reading
from fastdrop._interrupt import Interrupt, waiting_interrupt
from fastdrop._network import Network
from fastdrop._types import Array
from fastdrop.callbacks import Callback
from fastdrop.evaluation import Batches, Data, add_batch, measure
from fastdrop.losses import Loss
from fastdrop.metrics import Metric
from fastdrop.optim import AbstractOptimizer
from fastdrop.progress import Event, History, Logs, Progress, StoredCallback, means
from fastdrop.serialization import Checkpoint

Computed: TypeAlias = Callable[[Array], tuple[float, Array]]
"""Returns loss and gradient for a network's outputs."""


def do_step(
    net: Network, x: Any, compute: Computed, optimizer: AbstractOptimizer, step: int | None = None, row_offset: int = 0
) -> tuple[float, Array]:
    """Do one step and return (loss, outputs); bad arguments leave weights, counters and gradients as they were.

    Gradients are zeros afterwards.
    """
    count = net.step_count
    try:
        outputs, backward = net.forward(x, True, step, row_offset)
        value, gradient = compute(outputs)
        optimizer.backward_and_step(net, backward, gradient)
    except Exception:
        net.step_count = count
        raise
    return value, outputs


class Run:
    """One run of `fit`: arguments checked, state in `progress`."""

    def __init__(
        self,
        net: Network,
        optimizer: AbstractOptimizer,
        loss: Loss,
        measured: Sequence[Metric],
        callbacks: Sequence[Callback],
        data: Data,
        validation: Data | None,
        plan: dict[str, Any],
    ) -> None:
        self.net = net
        self.optimizer = optimizer
        self.loss = loss
        self.measured = measured
        self.callbacks = callbacks
        self.data = data
        self.validation = validation
        self.plan = plan
        self.progress = Progress()
        self.display: _display.AbstractDisplay = _display.Silent()

    @property
    def stopped(self) -> bool:
        """Whether a callback wants the run to end."""
        return any(callback.stop_training for callback in self.callbacks)

    def go(self, epochs: int, shown: bool, checkpoint: Checkpoint | None) -> History:
        """Run all epochs, or what a checkpoint leaves of them."""
        matched = [] if checkpoint is None else self._check_checkpoint(checkpoint)
        self._check_callbacks()
        if checkpoint is not None:
            checkpoint.restore(self.net, self.optimizer)
            self.progress = checkpoint.progress
            self._check_callbacks()
        self.optimizer.progress = self.progress
        self.net.zero_grad()
        self.display = _display.make(shown, epochs, len(Batches(self.data, self.plan["batch_size"])))
        with waiting_interrupt() as interrupt:
            begun: list[Callback] = []
            try:
                self._begin(matched, begun)
                self.net.output_kind = self.loss.output_kind or self.net.output_kind
                finished = self._epochs(epochs, interrupt)
            except BaseException:
                for callback in begun:
                    callback.on_train_abort()
                raise
            finally:
                self.display.close()
            self.progress.interrupted = not finished
            for callback in self.callbacks:
                callback.on_train_end()
        if interrupt.requested:
            raise KeyboardInterrupt
        return self.progress.history

    def _check_checkpoint(self, checkpoint: Checkpoint) -> list[tuple[Callback, StoredCallback]]:
        """Return the callbacks with their stored state, matched by class in order; raise if the run cannot go on from there."""
        progress = checkpoint.progress
        if progress.begun and progress.plan != self.plan:
            _validate.fail_value("resume", f"a checkpoint of a run with {self.plan} to go on within an epoch", progress.plan)
        names = {"loss", *(metric.name for metric in self.measured)}
        if progress.sums and set(progress.sums) != names:
            _validate.fail_value("resume", f"a checkpoint with the metrics {sorted(names)}", sorted(progress.sums))
        left = list(progress.stored)
        matched = []
        for callback in self.callbacks:
            stored = next((each for each in left if each.kind == type(callback).__name__), None)
            if stored is not None:
                left.remove(stored)
                with reading(checkpoint.path):
                    callback.check_state(stored.state)
                matched.append((callback, stored))
        return matched

    def _check_callbacks(self) -> None:
        for callback in self.callbacks:
            callback.net, callback.optimizer = self.net, self.optimizer
            callback.check()

    def _begin(self, matched: Sequence[tuple[Callback, StoredCallback]], begun: list[Callback]) -> None:
        """Start the callbacks, give them their stored state, and finish the hook that the checkpoint was written in."""
        for callback in self.callbacks:
            callback.stop_training = False
            callback.on_train_begin()
            begun.append(callback)
        for callback, stored in matched:
            callback.load_state_dict(stored.state)
        progress = self.progress
        progress.plan, progress.callbacks, progress.stored, progress.interrupted = self.plan, self.callbacks, [], False
        if progress.event is not None:
            progress.event.remaining = [callback for callback, stored in matched if not stored.ran]
            self._finish(progress.event)

    def _epochs(self, epochs: int, interrupt: Interrupt) -> bool:
        """Run the epochs that are left; return False if interrupted before their end."""
        progress = self.progress
        while progress.epoch < epochs and (progress.begun or not self.stopped):
            if interrupt.requested:
                return False
            if not progress.begun:
                progress.begun = True
                self._call("on_epoch_begin", progress.epoch, {})
            self.display.begin_epoch(progress.epoch, progress.position)
            if not self._steps(interrupt):
                return False
            logs = {name: float(value) for name, value in means(progress.sums).items()}
            if self.validation is not None:
                measured = measure(self.net, self.validation, self.loss, self.measured)
                logs |= {f"val_{name}": value for name, value in measured.items()}
            epoch = progress.epoch
            progress.end_epoch()
            self.net.epochs_completed += 1
            self._call("on_epoch_end", epoch, logs)
            self.display.end_epoch(logs)
        return True

    def _steps(self, interrupt: Interrupt) -> bool:
        """Run the steps that are left of the epoch in hand; return False if interrupted."""
        progress, net = self.progress, self.net
        order = rng.shuffle_order(net.seed, net.epochs_completed, len(self.data)) if self.plan["shuffle"] else None
        batches = Batches(self.data, self.plan["batch_size"], order)
        for batch in range(progress.position, len(batches)):
            if interrupt.requested:
                return False
            if self.stopped:
                break
            for callback in self.callbacks:
                callback.on_train_batch_begin(batch, {})
            part = batches[batch]
            penalty = net.penalty()
            value, outputs = do_step(net, part.x, partial(self._compute, part), self.optimizer)
            progress.position = batch + 1
            add_batch(progress.sums, value + penalty if penalty else value, self.measured, outputs, part.labels)
            logs = means(progress.sums)
            self._call("on_train_batch_end", batch, logs)
            self.display.step(logs)
        return not interrupt.requested

    def _compute(self, part: Data, outputs: Array) -> tuple[float, Array]:
        return self.loss.compute(outputs, part.labels, part.weights, None)

    def _call(self, hook: str, number: int, logs: Logs) -> None:
        """Call a hook of all callbacks."""
        self.progress.event = Event(hook, number, logs, list(self.callbacks))
        self._finish(self.progress.event)

    def _finish(self, event: Event) -> None:
        """Call the hook of the callbacks that remain; an epoch's results then become history."""
        while event.remaining:
            callback = event.remaining.pop(0)
            getattr(callback, event.hook)(event.number, event.logs)
        self.progress.event = None
        if event.hook == "on_epoch_end":
            self.progress.history.append(event.number, event.logs)
