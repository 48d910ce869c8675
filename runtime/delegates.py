"""Delegates: libraries that compute ops of a TFLite graph elsewhere than on the CPU.

Sources:
    https://coral.ai/docs/edgetpu/tflite-python/: names of the Edge TPU library.
    https://ai.google.dev/edge/litert/performance/gpu: the GPU delegate.
"""

import ctypes
import platform
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from deeplab2_edge.errors import UsageError
from deeplab2_edge.stderr import stderr_into

EDGE_TPU = "edgetpu"
GPU = "gpu"
XNNPACK = "xnnpack"
CPU = "cpu"
CPU_NAMES = (CPU, "none")

# By name and by what platform.system() says.
_LIBRARIES: Mapping[str, Mapping[str, str]] = {
    EDGE_TPU: {
        "Linux": "libedgetpu.so.1",
        "Darwin": "libedgetpu.1.dylib",
        "Windows": "edgetpu.dll",
    },
    GPU: {
        "Linux": "libtensorflowlite_gpu_delegate.so",
        "Darwin": "libtensorflowlite_gpu_delegate.dylib",
        "Windows": "tensorflowlite_gpu_delegate.dll",
    },
}
_HINTS = {
    EDGE_TPU: "install the Edge TPU runtime (Debian, Raspberry Pi: libedgetpu1-std of "
    "Coral, or a build of libedgetpu for this TFLite)",
    GPU: "ai-edge-litert 2.3 brings one for 64-bit systems; for other runtimes build "
    "tensorflow/lite/delegates/gpu for this board, or take its maker's",
}
_OTHER_HINT = "give the path of a TFLite external delegate, or none for the CPU"
_ENTRY_POINTS = ("tflite_plugin_create_delegate", "tflite_plugin_destroy_delegate")

VULKAN_HINT = "Debian, Raspberry Pi: apt install libvulkan1 mesa-vulkan-drivers"
_VULKAN = "libvulkan.so.1"

# Vendor and product: before the firmware is loaded, and after.
_CORAL_USB = (("1a6e", "089a"), ("18d1", "9302"))
_USB_DEVICES = Path("/sys/bus/usb/devices")
_DEV = Path("/dev")

# e_machine of ELF headers, and what platform.machine() calls these.
_ELF_MACHINES = {3: "i686", 40: "armv7l", 62: "x86_64", 183: "aarch64", 243: "riscv64"}
_SAME = {"arm64": "aarch64", "amd64": "x86_64", "armv6l": "armv7l", "armv8l": "armv7l"}


@dataclass(frozen=True)
class Delegate:
    """Is one that was asked for.

    Attributes:
        name: `edgetpu`, `gpu`, or the library's path.
        library: What to load.
        options: What the library is told.
    """

    name: str
    library: str
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_of_litert(self) -> bool:
        """Whether it is LiteRT's own for GPUs, which `gpu_engine` runs."""
        return Path(self.library).name.startswith("libLiteRt")

    @property
    def label(self) -> str:
        """What to call it in messages."""
        if self.name == self.library:
            return f"delegate {self.library!r}"
        return f"delegate {self.name} ({Path(self.library).name})"


def find_delegate(
    name: str | None,
    options: Mapping[str, str] | None = None,
    *,
    runtime: str = "ai-edge-litert",
) -> Delegate | None:
    """Says which library a name means, None if the CPU is meant.

    Args:
        name: `edgetpu`, `gpu`, `xnnpack`, `cpu`, `none` or None, or the path of a
            library.
        options: For the library.
        runtime: That would use it. ai-edge-litert brings a library for GPUs.

    Raises:
        UsageError: If the name means no library on this system, or options are given
            for the CPU.
    """
    if name is None or name == XNNPACK or name in CPU_NAMES:
        if options:
            raise UsageError(
                f"options {dict(options)} are for a delegate, but none is asked for"
            )
        return None
    libraries = _LIBRARIES.get(name)
    if libraries is None:
        if not name:
            raise UsageError(f"delegate is {name!r}; {_OTHER_HINT}")
        return Delegate(name, name, options or {})
    library = libraries.get(platform.system())
    if name == GPU and runtime == "ai-edge-litert":
        library = litert_gpu_library() or library
    if library is None:
        raise UsageError(
            f"delegate {name!r}: not known on {platform.system()}; give the path of "
            "its library"
        )
    return Delegate(name, library, options or {})


def load_delegate(runtime: ModuleType, delegate: Delegate) -> Any:
    """Loads the library of a delegate; a library of another ABI may end the process.

    Args:
        runtime: What `runtimes.import_runtime` gave.
        delegate: What `find_delegate` gave.

    Raises:
        UsageError: If it cannot be used; the message says what to do.
    """
    check_library(delegate)
    load = (
        runtime.load_delegate
        if hasattr(runtime, "load_delegate")
        else runtime.experimental.load_delegate
    )
    try:
        with stderr_into(2, with_stdout=True):  # stdout is for results
            return load(delegate.library, dict(delegate.options))
    except (OSError, ValueError, RuntimeError) as error:
        # The loader's own words and, behind them, those of the library, if any.
        said = str(error).partition("\n")[2] or "it says nothing"
        raise UsageError(
            f"{delegate.label} cannot be started ({' '.join(said.split())[:300]})"
            f"{_device_hint(delegate)}"
        ) from None


def check_library(delegate: Delegate) -> None:
    """Loads a library as such: is it there, for this processor, and a delegate?

    Raises:
        UsageError: If not.
    """
    if delegate.is_of_litert:
        _check_vulkan(delegate)
        return
    hint = _HINTS.get(delegate.name, _OTHER_HINT)
    path = Path(delegate.library)
    machine = elf_machine(path)
    here = this_machine()
    if machine is not None and machine != here:
        raise UsageError(
            f"{delegate.label} is built for {machine}, and this Python for {here}; "
            f"{hint}"
        )
    try:
        # The runtimes' own loading leaves a traceback on stderr if this fails.
        library = ctypes.CDLL(delegate.library)
    except OSError as error:
        is_path = path.name != delegate.library
        found = "no such file" if is_path and not path.exists() else str(error)
        raise UsageError(
            f"{delegate.label} cannot be loaded ({found}); {hint}"
        ) from None
    missing = [name for name in _ENTRY_POINTS if not hasattr(library, name)]
    if missing:
        raise UsageError(
            f"{delegate.label} is a library but no TFLite delegate: it has no "
            f"{missing[0]}; {hint}"
        )


def litert_gpu_library() -> str | None:
    """Finds the library for GPUs that ai-edge-litert brings, None if it has none."""
    spec = find_spec("ai_edge_litert")
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or ():
        for library in sorted(Path(folder).glob("libLiteRt*Accelerator.*")):
            return str(library)
    return None


def gpu_devices() -> list[str]:
    """Lists the GPUs that Linux offers to programs, each as a path."""
    return [str(path) for path in sorted((_DEV / "dri").glob("renderD*"))]


def coral_devices() -> list[str]:
    """Lists the Edge TPUs of this machine, each in words."""
    found = []
    for vendor_file in sorted(_USB_DEVICES.glob("*/idVendor")):
        product_file = vendor_file.with_name("idProduct")
        try:
            ids = vendor_file.read_text().strip(), product_file.read_text().strip()
        except OSError:
            continue
        if ids in _CORAL_USB:
            found.append(f"USB {':'.join(ids)}")
    return found + [str(path) for path in sorted(_DEV.glob("apex_*"))]


def elf_machine(path: Path) -> str | None:
    """Reads for which processor an ELF library is, None if it is no such file."""
    try:
        with path.open("rb") as stream:
            head = stream.read(20)
    except OSError:
        return None
    if len(head) < 20 or head[:4] != b"\x7fELF":
        return None
    order = ">" if head[5] == 2 else "<"
    (machine,) = struct.unpack_from(f"{order}H", head, 18)
    return _ELF_MACHINES.get(machine, f"machine {machine}")


def this_machine() -> str:
    """Names the processor for which this Python is built, as ELF headers do."""
    own = elf_machine(Path(sys.executable))  # a 64-bit kernel may run 32-bit programs
    machine = platform.machine().lower()
    return own or _SAME.get(machine, machine)


def _check_vulkan(delegate: Delegate) -> None:
    if platform.system() != "Linux":
        return  # Metal and Direct3D are parts of their systems
    try:
        ctypes.CDLL(_VULKAN)
    except OSError:
        raise UsageError(
            f"{delegate.label} needs a Vulkan driver, and there is no {_VULKAN} "
            f"({VULKAN_HINT})"
        ) from None


def _device_hint(delegate: Delegate) -> str:
    if delegate.name == EDGE_TPU and not coral_devices():
        return "; no Coral device was found on USB or PCIe: plug it in"
    if delegate.name == EDGE_TPU:
        return "; is the device in use, and may this user open it (group plugdev)?"
    return ""
