"""Repeats the comparison of a model file with its float source, any time later."""

from dataclasses import dataclass
from typing import Any

from deeplab2_edge import checkpoints
from deeplab2_edge.config import load_config
from deeplab2_edge.convert.certificate import (
    Certificate,
    Finding,
    make_certificate,
    read_certificate,
)
from deeplab2_edge.convert.images import ImageSet, open_data, open_same
from deeplab2_edge.convert.provenance import checkpoint_sha256
from deeplab2_edge.convert.quiet import quiet_native_notes
from deeplab2_edge.convert.verification import Verification, verify
from deeplab2_edge.datasets.registry import DatasetInfo
from deeplab2_edge.errors import UsageError
from deeplab2_edge.experiments import find_config
from deeplab2_edge.families import abilities_of
from deeplab2_edge.model_file import ModelFile
from deeplab2_edge.models.engine import dataset_of, load_engine
from deeplab2_edge.runtime.engine import open_engine
from deeplab2_edge.samples import SYNTHETIC

# When neither the user nor a certificate says how many.
_DEFAULT_IMAGES = 8
# A file can say anything.
_MOST_STATED_IMAGES = 10_000


@dataclass(frozen=True, eq=False)
class Repetition:
    """Holds a repeated comparison.

    Attributes:
        verification: What was found now.
        certificate: What a conversion of today would say of the file.
        findings: The promises of the file's own certificate that hold on these images.
        notes: What the user should know.
    """

    verification: Verification
    certificate: Certificate
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether no promise is broken."""
        kept = all(finding.is_kept is not False for finding in self.findings)
        return kept and self.certificate.passed

    def to_json(self) -> dict[str, Any]:
        """Gives plain JSON values."""
        return {
            "passed": self.passed,
            "verdict": self.certificate.verdict,
            "findings": [finding.to_json() for finding in self.findings],
            "verification": self.verification.to_json(),
            "notes": list(self.notes),
        }


def repeat_comparison(
    model: ModelFile,
    checkpoint: str,
    *,
    config: str | None = None,
    data: str | None = None,
    num_images: int | None = None,
    num_threads: int | None = None,
    quiet: bool = False,
) -> Repetition:
    """Compares a model file with a checkpoint, on the canvas of the file.

    Args:
        model: A file of any format and family.
        checkpoint: See `checkpoints.resolve_checkpoint`.
        config: Its experiment; by default the one beside it.
        data: What `open_samples` takes; by default scenes of the synthetic world.
            Images that the certificate names are taken, if they are all there.
        num_images: Most images; by default as many as the certificate says.
        num_threads: Of the file's engine.
        quiet: Show no progress.

    Raises:
        UsageError: If the checkpoint is of other classes, or an option makes no sense.
        ConfigError: If the configuration is missing or wrong.
        CheckpointError: If the checkpoint is missing, damaged or of another model.
        DataError: If images cannot be used.
        ConversionError: If a model gives values that are not finite.
    """
    if num_images is not None and num_images < 1:
        raise UsageError(f"--images is {num_images}; must be at least 1")
    certificate = read_certificate(model.metadata)
    prefix = checkpoints.resolve_checkpoint(checkpoint)
    experiment = load_config(find_config(checkpoint, config))
    info = dataset_of(experiment)
    images = _open_images(
        model,
        info,
        certificate,
        data,
        num_images,
        in_order=abilities_of(experiment).keeps_ids,
    )
    converted = open_engine(model, num_threads=num_threads)
    with quiet_native_notes():
        source = load_engine(experiment, checkpoint, canvas=model.metadata.canvas)
        verification = verify(
            source,
            converted,
            images.samples,
            location=images.location,
            labels_of=info if images.has_labels else None,
            quiet=quiet,
        )
    today = make_certificate(
        model.metadata,
        model.graph,
        model.format,
        verification,
        weights_license=None if certificate is None else certificate.license,
    )
    digest = checkpoint_sha256(prefix)
    return Repetition(
        verification,
        today,
        certificate.findings(verification) if certificate else (),
        (*images.notes, *_notes(certificate, verification, digest)),
    )


def _open_images(
    model: ModelFile,
    info: DatasetInfo,
    certificate: Certificate | None,
    data: str | None,
    num_images: int | None,
    *,
    in_order: bool,
) -> ImageSet:
    canvas = model.metadata.canvas
    is_synthetic = (
        certificate is not None and certificate.data.split(":")[0] == SYNTHETIC
    )
    if data is None:
        default = f"{SYNTHETIC}:val"
        data = certificate.data if certificate and is_synthetic else default
    if certificate is not None and num_images in (None, certificate.num_images):
        names = certificate.image_names
        if len(names) == certificate.num_images:
            same = open_same(data, info, canvas, names)
            if same is not None:
                return same
    stated = certificate.num_images if certificate else _DEFAULT_IMAGES
    count = num_images or min(max(stated, 1), _MOST_STATED_IMAGES)
    _, images = open_data(
        info,
        canvas,
        calibration_data=None,
        calibration_images=0,
        verification_data=data,
        verification_images=count,
        in_order=in_order,
    )
    return images


def _notes(
    certificate: Certificate | None, verification: Verification, digest: str
) -> list[str]:
    if certificate is None:
        return ["the file has no certificate: nothing to hold it to but its mode"]
    notes = []
    if certificate.checkpoint_sha256 != digest:
        notes.append(
            f"this is another checkpoint than the one the file was made of "
            f"({certificate.checkpoint}, SHA-256 {certificate.checkpoint_sha256[:16]}"
            f"...; this one {digest[:16]}...)"
        )
    if certificate.inputs_sha256 != verification.inputs_sha256:
        notes.append(
            f"these are other images than those of the certificate "
            f"({certificate.num_images} of {certificate.data}): only promises for any "
            "images are checked; give the same with --data"
        )
    return notes
