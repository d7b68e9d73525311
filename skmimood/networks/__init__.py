"""The networks, in torch alone: modules, their weights, and how they are applied to more rows than fit at once.

A network gets tensors and an explicit generator, and returns tensors. Losses and estimators belong in the methods
(`skmimood.tokens`, `skmimood.detectors`), the loop in `skmimood.training`, devices and processes in `skmimood.runtime`.
"""
