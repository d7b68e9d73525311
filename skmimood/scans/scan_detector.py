"""Whole scans in, anomaly maps on each scan's own grid out."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from joblib import effective_n_jobs
from sklearn.utils.validation import check_is_fitted

from skmimood.exceptions import warn
from skmimood.nifti import Source, make_image, scan_id
from skmimood.runtime.progress import each, job
from skmimood.scans import cohort, fitting, state
from skmimood.scans.cohort import PreparedScan
from skmimood.scans.domain import Domain
from skmimood.scans.mapping import (
    ScanMaps,
    average_precision,
    draw_healed,
    draw_scan,
    map_in_workers,
    top_mean,
)
from skmimood.scans.reference import CLUSTER_FPR
from skmimood.scans.results import ScanResult
from skmimood.scans.sources import ListedScan, list_in_order, list_scans, mask_suffixes, pair_brain_masks

if TYPE_CHECKING:
    from nibabel import Nifti1Image


class ScanDetector(fitting.FittingDetector):
    """Fit a slice pipeline on healthy scans and map what is abnormal in others.

    Scans are read one at a time, twice in `fit`, once otherwise. Only the training slices are held together.

    Parameters
    ----------
    pipeline : sklearn.pipeline.Pipeline
        Steps for slices (n, H, W), as :func:`skmimood.make_mimood_pipeline` returns them. It is cloned. Scans of
        several modalities, each a tuple of files or images on one grid, are slices (n, C, H, W): all must then have as
        many, in one order. Each is scaled by itself, and the foreground is what any shows.
    plane : {"axial", "coronal", "sagittal"}, default="axial"
        Direction of the slices in the patient. In the sagittal plane, parameters ``flip`` of the steps become False:
        front and back are no mirror images. Needs a refit.
    spacing : float, optional
        Pixel size in mm. By default the smallest that crops no training foreground but of ``suspects_``. Needs a refit.
    size : int or (int, int), default=64
        Height and width of the slices in pixels: 32 for preset ``"toy"``, 64 for ``"tiny"``, 128 for ``"small"``, 160
        for ``"paper"``; `fit` warns of another. Needs a refit.
    mask : str, default="auto"
        ``"auto"`` finds head or brain from the intensities; ``"none"`` takes every voxel as foreground; ``"ct-brain"``
        finds the brain in head CT, in Hounsfield units or a brain window, and scales it by that window; else the
        ending of a brain mask beside each scan (``"_brainmask"``). Outside of brains all becomes 0. No refit needed.
    modality : str, optional
        Ending of the files to take from folders and globs (``"T1"``), or the endings of several modalities in order
        (``"T1w,FLAIR"``), whose files, in one folder and named alike but for them, are one scan. By default all but
        label images (``_mask``, ``_dseg``, ``aparc+aseg``, ...) and results (``_anomaly``, ...), by their names. No
        refit needed.
    min_foreground : float, default=0.05
        Share of the frame that foreground must fill for a slice to be learned from. Needs a refit.
    calibration_fraction : float, default=0.15
        Share of the healthy subjects held out for the thresholds, at least one; more if ``scan_fpr`` needs more and
        half of them are left to learn from. Needs a refit.
    fpr, scan_fpr : float, default=0.01 and 0.1
        False-positive rates among healthy foreground voxels, for ``pixel_threshold_``, and among healthy scans, for
        ``scan_threshold_``; the latter is infinite with fewer than 1 / scan_fpr - 1 subjects to calibrate on. They need
        no refit: see `set_rates`.
    slice_smoothing : float >= 0, default=5.0
        Standard deviation in mm of the Gaussian that averages the maps of neighbouring slices, at their true distance;
        slices too far apart stay as they are, and 0 leaves all. See :func:`skmimood.maps.volumes.filter_across`. No
        refit needed, but `calibrate`: until then it changes no map.
    max_slices : int, default=20000
        Largest number of slices to train on; of more, a random sample is taken. Needs a refit.
    max_bytes : int, default=2 GiB
        Scans that announce more bytes are refused before they are read.
    max_invalid : float, default=0.01
        Largest accepted share of NaN and infinite voxels in the head, in [0, 1]. Outside it, they are background.
    random_state : int, RandomState instance or None, default=0
        Draws the calibration scans and, beyond ``max_slices``, the slices. The pipeline has its own.
    verbose : bool, default=False
        Show how far `fit` is and how long it may still take.
    volume : int, optional
        Which volume of 4-D scans to take.
    n_jobs : int, optional
        Scans to map at the same time in `detect`, `decision_function`, `predict` and `score_samples`, by the active
        joblib backend: processes, or a cluster under ``joblib.parallel_config("dask")``; None is 1 outside such a
        context. A failing worker ends it; see ``skmimood score --jobs``.

    Attributes
    ----------
    pipeline_ : Pipeline
        The fitted clone.
    plane_, spacing_, size_, mask_
        What they were, or were found to be, in `fit`; ``mask_`` is ``"given"`` if masks were handed over.
    slice_smoothing_ : float
        What it was when the thresholds were set.
    n_modalities_ : int
        Of each scan; C of the slices.
    scan_statistic_ : {"cluster mass", "top mean"}
        How scans are scored: see ``ScanResult.score``. ``"top mean"`` only in models of before.
    reference_ : HealthyReference
        Scores of the held-out healthy scans.
    pixel_threshold_, scan_threshold_ : float
        What `predict` and ``ScanResult.is_anomalous`` compare with; may be set to anything.
    calibrated_with_ : dict
        Parameters of ``pipeline_`` at that time; `detect` warns if they have changed since.
    fit_status_ : list of ScanStatus
        What became of each scan given to `fit`.
    n_scans_, n_slices_ : int
        Numbers learned from.
    intensity_histogram_, intensity_limit_, layout_, layout_limit_
        What the training scans look like, and how different a scan may be before it is flagged; see
        :class:`skmimood.scans.domain.Domain`.
    foreground_range_, aspect_range_, pixel_range_, thickness_range_
        Likewise of volume and shape of the foreground, and of the sides of voxels.
    suspects_ : dict of str to str
        Healthy scans that differ much from the others, and in what. They are learned from all the same.

    Examples
    --------
    >>> from skmimood import ScanDetector, make_mimood_pipeline
    >>> detector = ScanDetector(make_mimood_pipeline(preset="tiny")).fit("healthy/")  # doctest: +SKIP
    >>> maps = detector.decision_function(["patient.nii.gz"])  # doctest: +SKIP
    """

    def fit(self, X: Any, y: Any = None, groups: Any = None, *, brain_masks: Any = None) -> ScanDetector:
        """Learn from healthy scans, and set the thresholds on scans held out of them.

        Parameters
        ----------
        X : folder, glob, path, nibabel image, or list of paths, images and tuples of them
            Healthy scans, each of several modalities as a tuple; at least 3 that can be used. Files that are named as
            label images are left out.
        y : as in `score`, optional
            Lesion masks. Slices that hold a lesion are neither learned from nor used for the thresholds.
        groups : list, array or series of labels, optional
            Scans of one label, such as the sessions of a subject, are never divided between training, its validation
            and the thresholds. By default the subject; see :func:`skmimood.scans.subjects.groups_of`.
        brain_masks : list, array or series of paths, images and None, optional
            One for each scan, which gives its foreground; None leaves that to ``mask``. Scans in memory can have them.

        Returns
        -------
        self

        Raises
        ------
        InputError
            If a parameter is wrong, there are too few usable scans or subjects, or no slice has enough foreground. A
            scan that cannot be used does not raise: it is warned about and listed in ``fit_status_``.
        """
        self._check_parameters()
        self._begin()
        scans = list_scans(X, y, groups, brain_masks, **self._choice(y))
        if any(scan.brain_mask is not None for scan in scans):
            self.mask_ = "given"
        with job("fit", fitting.expected_seconds(self.pipeline, len(scans)), shown=self.verbose):
            self._learn(scans)
        return self

    def calibrate(
        self, X: Any, y: Any = None, *, groups: Any = None, brain_masks: Any = None, fpr: float | None = None,
        scan_fpr: float | None = None,
    ) -> ScanDetector:  # fmt: skip
        """Set both thresholds anew on healthy scans that took no part in `fit`, of a new site for instance.

        Parameters
        ----------
        X, y, groups, brain_masks : as in `fit`
            At least 1 healthy scan. Of several scans of one group the highest score counts. Scans that cannot be
            used, or whose subject was learned from, are warned about.
        fpr, scan_fpr : float in (0, 1), optional
            Rates to use instead of the parameters.

        Returns
        -------
        self

        Raises
        ------
        InputError
            If a rate is not in (0, 1) or no scan can be used.
        """
        check_is_fitted(self)
        fpr, scan_fpr = self.fpr if fpr is None else fpr, self.scan_fpr if scan_fpr is None else scan_fpr
        rates = {"fpr": fpr, "scan_fpr": scan_fpr}
        type(self)(**{**self.get_params(deep=False), **rates})._check_parameters()
        scans = list_scans(X, y, groups, brain_masks, **self._choice(y))
        fitting.warn_about_learned(scans, self.fit_status_, by_name=groups is None)
        reference, _, _ = self._refer(self._screen(scans)[0])
        self._set_thresholds(reference, fpr, scan_fpr)
        return self

    def set_rates(self, *, fpr: float | None = None, scan_fpr: float | None = None) -> ScanDetector:
        """Set the thresholds to those of other false-positive rates; no scan is read, and no map or score changes.

        Parameters
        ----------
        fpr, scan_fpr : float in (0, 1), optional
            New values of the parameters. None leaves the parameter and its threshold as they are.

        Returns
        -------
        self

        Raises
        ------
        InputError
            If a rate is not in (0, 1).
        """
        check_is_fitted(self)
        pixel = self.pixel_threshold_ if fpr is None else self.reference_.pixel_threshold(fpr)
        scan = self.scan_threshold_ if scan_fpr is None else self.reference_.scan_threshold(scan_fpr)
        self.pixel_threshold_, self.scan_threshold_ = pixel, scan
        self.fpr = self.fpr if fpr is None else fpr
        self.scan_fpr = self.scan_fpr if scan_fpr is None else scan_fpr
        return self

    def detect_scan(self, source: Source, index: int = 0, *, brain_mask: Source | None = None) -> ScanResult:
        """Map one scan, whose foreground ``brain_mask`` gives if there is one.

        An image that has no file is called ``"scan-<index>"``. Raises `ScanReadError` if the scan cannot be read or
        is empty. A scan of several modalities is a tuple.
        """
        check_is_fitted(self)
        self._check_parameters()
        state.warn_if_changed(self.pipeline_, self.calibrated_with_)
        (brain_mask,) = pair_brain_masks([brain_mask], [source])
        return self._detect_scan(ListedScan(scan_id(source, index), source, brain_mask=brain_mask))

    def detect(self, X: Any, *, brain_masks: Any = None) -> Iterator[ScanResult]:
        """Map scans one at a time.

        Parameters
        ----------
        X : folder, glob, path, nibabel image, or list of paths, images and tuples of them
            The scans, those of several modalities as tuples in the order of `fit`. ``modality`` and the endings of
            masks choose among files of folders and globs only.
        brain_masks : as in `fit`

        Returns
        -------
        iterator of ScanResult
            Raises `ScanReadError` at a scan that cannot be read; use `detect_scan` to go on with others.
        """
        return self._results(X, brain_masks)

    def decision_function(self, X: Any, *, brain_masks: Any = None) -> list[Nifti1Image]:
        """Return a float32 anomaly map on the grid of each scan of ``X``; see `detect`."""
        return [result.anomaly for result in self._detect_loudly(X, brain_masks)]

    def predict(self, X: Any, *, brain_masks: Any = None) -> list[Nifti1Image]:
        """Return a uint8 mask on the grid of each scan of ``X``: map above ``pixel_threshold_``."""
        return [result.mask for result in self._detect_loudly(X, brain_masks)]

    def score_samples(self, X: Any, *, brain_masks: Any = None) -> np.ndarray:
        """Return one score for each scan of ``X``, shape (n_scans,), float64; higher is more anomalous."""
        return np.asarray([result.score for result in self._detect_loudly(X, brain_masks)], dtype=np.float64)

    def score(self, X: Any, y: Any, *, brain_masks: Any = None) -> float:
        """Average precision over the voxels of all scans together, background included.

        Parameters
        ----------
        X, brain_masks : as in `detect`
        y : suffix, folder, glob, or list of paths, images and None
            Lesion masks; see :func:`skmimood.nifti.read_labels`. A suffix (``"_seg"``) names files beside the scans.
            A list is in the order of the scans, with None for a scan without lesions. The files of a folder
            or glob belong to the scans of the same name, or of the same name up to the last underscore.

        Returns
        -------
        float
            In [0, 1]; NaN with a warning if no mask holds a lesion. Values within 0.05 % may be tied.
        """
        check_is_fitted(self)
        self._check_parameters()
        scans = list_in_order(X, y, brain_masks, **self._choice(y))
        read = (self._reader().read(scan) for scan in self._progress(scans, "scoring"))
        return average_precision(read, self._frame(), self.pipeline_, self.slice_smoothing_)

    def _choice(self, y: Any = None) -> dict[str, Any]:
        return {"suffix": self.modality, "exclude": mask_suffixes((self.mask, self.mask_), y)}

    def _results(self, X: Any, brain_masks: Any, *, healing: bool = True) -> Iterator[ScanResult]:
        check_is_fitted(self)
        self._check_parameters()
        state.warn_if_changed(self.pipeline_, self.calibrated_with_)
        scans = list_in_order(X, None, brain_masks, **self._choice())
        if effective_n_jobs(self.n_jobs) == 1:
            return (self._detect_scan(scan, healing) for scan in self._progress(scans, "scoring"))
        results = map_in_workers(self._detect_scan, [(scan, healing) for scan in scans], self.n_jobs)
        return each(results, "scoring", "scans", shown=self.verbose, total=len(scans))

    def _detect_scan(self, scan: ListedScan, healing: bool = True) -> ScanResult:
        prepared, frame = self._reader().read(scan), self._frame()
        features = cohort.measure(prepared, self.plane_)
        origin = cohort.remarks_on_foreground(self.mask, scan.brain_mask, self.mask_)
        unlike = Domain.of(self).remarks(features)
        flags = (*prepared.scan.warnings, *origin, *unlike, *frame.remarks(features.extent))
        maps = frame.map(prepared, self.pipeline_, self.slice_smoothing_)
        return self._judge(prepared, maps, flags, healing=healing)

    def _judge(
        self, prepared: PreparedScan, maps: ScanMaps, flags: tuple[str, ...], *, healing: bool
    ) -> ScanResult:
        """Compare the map of a scan with healthy scans and thresholds; with ``healing``, it can be healed."""
        reference, pixel_threshold = self.reference_, self.pixel_threshold_
        values = maps.values
        if self.scan_statistic_ == state.CLUSTER_MASS:
            score = maps.mass()(reference.pixel_threshold(CLUSTER_FPR))
        else:
            score = top_mean(values)
        pvalues = np.ones(maps.anomaly.shape, dtype=np.float32)
        pvalues[maps.scored] = reference.pixel_pvalue(values)
        mask = np.zeros(maps.anomaly.shape, dtype=np.uint8)
        mask[maps.scored] = values > pixel_threshold
        return ScanResult(
            id=prepared.scan.id,
            score=score,
            pvalue=reference.scan_pvalue(score),
            is_anomalous=bool(score > self.scan_threshold_),
            anomaly=make_image(maps.anomaly, prepared.scan),
            pvalues=make_image(pvalues, prepared.scan),
            mask=make_image(mask, prepared.scan, dtype=np.uint8),
            flags=(*flags, *maps.flags),
            gallery=maps.gallery(maps.most_anomalous(), pixel_threshold),
            scan=draw_scan(prepared) if healing else None,
            healing=partial(draw_healed, prepared, maps, pixel_threshold) if healing else None,
            extension=prepared.scan.extension,
            n_modalities=1 + len(prepared.others),
        )

    def _detect_loudly(self, X: Any, brain_masks: Any) -> Iterator[ScanResult]:
        """Map scans, and warn where the caller will not see the flags."""
        for result in self._results(X, brain_masks, healing=False):
            if result.flags:
                warn(f"{result.id}: {'; '.join(result.flags)}.")
            yield result
