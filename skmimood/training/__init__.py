"""How any network is trained: the one loop, the base of the estimators that train, augmentation and painted anomalies.

The network and its loss belong to each method (`skmimood.tokens`, `skmimood.detectors`); where a training runs and what
it draws, to `skmimood.runtime`.
"""
