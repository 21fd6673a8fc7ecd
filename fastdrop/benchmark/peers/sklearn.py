"""scikit-learn's MLP, which has no dropout."""

from __future__ import annotations

import numpy as np
from sklearn.neural_network import MLPClassifier

from fastdrop.benchmark.cases import Prepare, Step, Work
from fastdrop.benchmark.cases.base import LEARNING_RATE, MOMENTUM
from fastdrop.benchmark.peers.base import SEED, AbstractPeer
from fastdrop.benchmark.peers.numpy import limit_blas


class ScikitLearn(AbstractPeer):
    """`MLPClassifier.partial_fit` of a batch: a step without dropout."""

    name, distribution = "scikit-learn", "scikit-learn"

    def set_threads(self, threads: int) -> bool:
        return limit_blas(threads)

    def step(self, case: Step) -> Prepare:
        units = case.architecture.units
        model = MLPClassifier(
            units[1:-1],
            solver="sgd",
            alpha=0,
            batch_size=case.batch,
            learning_rate_init=LEARNING_RATE,
            momentum=MOMENTUM,
            nesterovs_momentum=False,
            random_state=SEED,
        )
        classes = np.arange(units[-1])

        def prepare(number: int) -> Work:
            x, labels = case.batches[number % len(case.batches)]
            return lambda: model.partial_fit(x, labels, classes=classes).loss_

        return prepare
