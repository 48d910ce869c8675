"""Makes small Debian userlands for ARM, and runs Python of them under QEMU.

Nothing is installed on this machine and nothing needs root: packages are downloaded
with an apt state of its own and unpacked, wheels come with this machine's pip. A
program then runs under `qemu-aarch64-static -L ROOT`. Mirrors and package indexes are
those that this machine is configured for.

`python -m tests.arm.userland` makes all of them, `python -m tests.arm.userland NAME
PROGRAM...` runs Python there.
"""

import dataclasses
import functools
import hashlib
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

PROGRAMS = ("qemu-aarch64-static", "qemu-arm-static", "apt-get", "dpkg-deb")
INSTALL = (
    "apt-get install qemu-user-static g++-aarch64-linux-gnu g++-arm-linux-gnueabihf"
)

_PYTHON_DEBS = ("python3", "libstdc++6", "libgomp1")
_ARM64_TAGS = tuple(
    f"{level}_aarch64"
    for level in (
        "manylinux_2_28",
        "manylinux_2_27",
        "manylinux2014",  # pip does not try older levels by itself
        "manylinux_2_17",
    )
)
# OpenCV without windows: servers and small boards have no libGL.
_SAME_AS_HERE = {
    "ai-edge-litert": ("ai-edge-litert",),
    "numpy": ("numpy",),
    "opencv-python-headless": ("opencv-python-headless", "opencv-python"),
}
# Our own tests run there too. This is the last hypothesis without compiled parts.
_TEST_TOOLS = ("pytest>=9", "hypothesis<6.156")
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


@dataclasses.dataclass(frozen=True)
class Userland:
    """Is one release of Debian on one kind of ARM.

    Attributes:
        name: Of its folder.
        release: Code name of the release; Raspberry Pi OS has the same.
        architecture: As Debian calls it.
        machine: As `platform.machine()` calls it.
        python: Version of its Python.
        cpu: Which one QEMU is to be. Without a name it is one with every extension;
            with SVE and SME int8 answers of ai-edge-litert 2.3.0 are wrong.
        debs: Packages besides what these need.
        wheels: From the package index, with versions.
        tags: Platforms of these wheels.
        is_like_here: Whether the versions of the wheels are those of this machine.
    """

    name: str
    release: str
    architecture: str
    machine: str
    python: str
    cpu: str
    debs: tuple[str, ...] = _PYTHON_DEBS
    wheels: tuple[str, ...] = ()
    tags: tuple[str, ...] = _ARM64_TAGS
    is_like_here: bool = True

    @property
    def emulator(self) -> str:
        """The program that runs its programs."""
        return "qemu-arm-static" if self.machine == "armv7l" else "qemu-aarch64-static"

    @property
    def compiler(self) -> str:
        """The C++ compiler of this machine that compiles for it."""
        kind = (
            "arm-linux-gnueabihf" if self.machine == "armv7l" else "aarch64-linux-gnu"
        )
        return f"{kind}-g++"


USERLANDS: Mapping[str, Userland] = {
    userland.name: userland
    for userland in (
        Userland(
            "bookworm-arm64", "bookworm", "arm64", "aarch64", "3.11", "cortex-a72"
        ),
        Userland("trixie-arm64", "trixie", "arm64", "aarch64", "3.13", "cortex-a76"),
        # The package index has neither NumPy nor OpenCV for 32 bits, but Debian has.
        Userland(
            "bookworm-armhf",
            "bookworm",
            "armhf",
            "armv7l",
            "3.11",
            "cortex-a7",
            debs=(*_PYTHON_DEBS, "python3-numpy", "python3-opencv"),
            wheels=("tflite-runtime==2.14.0",),
            tags=("manylinux_2_34_armv7l",),
            is_like_here=False,
        ),
    )
}


class UserlandError(Exception):
    """Says what is missing to make or run a userland."""


def cache_folder() -> Path:
    """Gives the folder of all userlands."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "deeplab2-edge" / "arm"


def fresh_folder(name: str, version: str) -> Path:
    """Gives a folder in the cache, and removes those of other versions."""
    folder = cache_folder() / f"{name}-{version}"
    for other in cache_folder().glob(f"{name}-*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def missing_programs() -> list[str]:
    """Lists the programs that this machine lacks."""
    compilers = {userland.compiler for userland in USERLANDS.values()}
    return [name for name in (*PROGRAMS, *sorted(compilers)) if not shutil.which(name)]


def make_userland(userland: Userland) -> Path:
    """Makes a userland, or finds the one that was made before.

    Returns:
        Its folder, with `root` (Debian) and `site` (wheels).

    Raises:
        UserlandError: If a package cannot be had; the message holds the last lines
            of the tool that failed.
    """
    wheels = _wheels(userland)
    recipe = repr((userland, wheels, _TEST_TOOLS, _VERSION))
    digest = hashlib.sha256(recipe.encode()).hexdigest()[:12]
    folder = fresh_folder(userland.name, digest)
    if (folder / "ready").exists():
        return folder
    shutil.rmtree(folder)
    _unpack_debian(userland, folder)
    _complete_root(userland, folder / "root")
    site = folder / "site"
    # What Debian brings must not be asked of the index, which does not have it.
    complete = () if userland.is_like_here else ("--no-deps",)
    _install(wheels, userland, site, "--only-binary", ":all:", *complete)
    _install(_TEST_TOOLS, userland, site, "--only-binary", ":all:")
    (folder / "ready").write_text(recipe, encoding="utf-8")
    return folder


def install_wheel(wheel: Path, userland: Userland, target: Path) -> None:
    """Unpacks a wheel of ours as pip does, without what it needs.

    Raises:
        UserlandError: If pip refuses it.
    """
    _install([str(wheel)], userland, target, "--no-deps", "--no-index")


def python_command(
    userland: Userland, folder: Path, *arguments: str
) -> tuple[list[str], dict[str, str]]:
    """Gives the command that runs Python of a userland, and its environment.

    The environment names nothing of this machine but `PATH` inside the userland, so
    that no compiler of this machine answers for the emulated one.
    """
    root = folder / "root"
    command = [
        userland.emulator,
        "-L",
        str(root),
        str(root / "usr/bin" / f"python{userland.python}"),
        *arguments,
    ]
    environment = {
        "PATH": str(root / "usr/bin"),
        "HOME": "/nonexistent",
        "LANG": "C.UTF-8",
        "QEMU_CPU": userland.cpu,
        "PYTHONPATH": str(folder / "site"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command[0] = str(shutil.which(command[0]) or command[0])
    return command, environment


_VERSION = 1  # of what the functions below do


def _wheels(userland: Userland) -> tuple[str, ...]:
    if not userland.is_like_here:
        return userland.wheels
    return tuple(
        f"{name}=={_version_here(distributions)}"
        for name, distributions in _SAME_AS_HERE.items()
    )


def _version_here(distributions: Sequence[str]) -> str:
    for name in distributions:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    raise UserlandError(f"{distributions[0]} is not installed here; run: make setup")


def _unpack_debian(userland: Userland, folder: Path) -> None:
    """Downloads packages and all that these need, and unpacks them."""
    state, cache = folder / "apt/state", folder / "apt/cache"
    for place in (state / "lists/partial", cache / "archives/partial"):
        place.mkdir(parents=True)
    sources, options = folder / "apt/sources.list", folder / "apt/apt.conf"
    signed = f" signed-by={_KEYRING}" if _KEYRING.exists() else ""
    kind = f"[arch={userland.architecture}{signed}]"
    sources.write_text(f"deb {kind} {_mirror()} {userland.release} main\n")
    # Cleared is what this machine wants done after an update or an installation.
    options.write_text(
        "#clear APT::Update;\n#clear DPkg;\n#clear APT::Architectures;\n"
        f'APT::Architecture "{userland.architecture}";\n'
        f'APT::Architectures {{ "{userland.architecture}"; }};\n'
        f'Dir::State "{state}";\nDir::State::status "/dev/null";\n'
        f'Dir::Cache "{cache}";\n'
        f'Dir::Etc::sourcelist "{sources}";\nDir::Etc::sourceparts "-";\n'
        'APT::Install-Recommends "false";\nAPT::Sandbox::User "root";\n'
        'Acquire::Languages "none";\nDebug::NoLocking "true";\n'
    )
    environment = {**os.environ, "APT_CONFIG": str(options)}
    _call(["apt-get", "-q", "update"], environment)
    _call(
        ["apt-get", "-q", "-y", "--download-only", "install", *userland.debs],
        environment,
    )
    root = folder / "root"
    root.mkdir()
    for archive in sorted((cache / "archives").glob("*.deb")):
        _call(["dpkg-deb", "--extract", str(archive), str(root)])
    shutil.rmtree(folder / "apt")


def _complete_root(userland: Userland, root: Path) -> None:
    """Makes what maintainer scripts and the kernel would bring."""
    libraries = f"lib/{userland.compiler.removesuffix('-g++')}"
    if not (root / "lib").exists():  # one tree since trixie; base-files has the link
        (root / "lib").symlink_to("usr/lib")
    for name in ("blas", "lapack"):
        library = root / "usr" / libraries / name / f"lib{name}.so.3"
        if library.exists():
            (library.parents[1] / library.name).symlink_to(f"{name}/{library.name}")
    # QEMU before 8 shows the processor of this machine; the library that counts the
    # kinds of ARM cores then crashes.
    part = {"cortex-a7": "0xc07", "cortex-a72": "0xd08", "cortex-a76": "0xd0b"}
    features = {
        "aarch64": "fp asimd evtstrm crc32 cpuid",
        "armv7l": "half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt",
    }
    core = (
        "processor\t: {}\nBogoMIPS\t: 108.00\n"
        f"Features\t: {features[userland.machine]}\n"
        "CPU implementer\t: 0x41\n"
        f"CPU architecture: {8 if userland.machine == 'aarch64' else 7}\n"
        f"CPU variant\t: 0x0\nCPU part\t: {part[userland.cpu]}\nCPU revision\t: 3\n\n"
    )
    text = "".join(core.format(number) for number in range(os.cpu_count() or 1))
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc/cpuinfo").write_text(f"{text}Model\t\t: emulated by QEMU\n")


def _install(
    wheels: Sequence[str], userland: Userland, target: Path, *options: str
) -> None:
    own = f"linux_{userland.machine}"  # of wheels that were made for one machine
    tags = [part for tag in (*userland.tags, own) for part in ("--platform", tag)]
    _call(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-compile"),
            *("--disable-pip-version-check", "--root-user-action", "ignore"),
            *("--target", str(target), "--implementation", "cp"),
            *("--python-version", userland.python, *tags, *options, *wheels),
        ]
    )


@functools.cache
def _mirror() -> str:
    """Gives the address that this machine has its own Debian from."""
    release = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    places = [Path("/etc/apt/sources.list")]
    places += sorted(Path("/etc/apt/sources.list.d").glob("*.list"))
    places += sorted(Path("/etc/apt/sources.list.d").glob("*.sources"))
    for place in places:
        text = place.read_text(encoding="utf-8") if place.is_file() else ""
        text = re.sub(r"^\s*#.*\n?", "", text, flags=re.MULTILINE)
        entries = _deb822(text) if place.suffix == ".sources" else _one_line(text)
        for address, suites, components in entries:
            if release in suites and "main" in components:
                return address
    raise UserlandError(
        f"no source of Debian {release or '(unknown release)'} in /etc/apt; the "
        "userlands are made on Debian"
    )


def _one_line(text: str) -> Iterator[tuple[str, list[str], list[str]]]:
    for line in text.splitlines():
        words = re.sub(r"\[.*?\]", "", line).split()
        if len(words) > 3 and words[0] == "deb":
            yield words[1], [words[2]], words[3:]


def _deb822(text: str) -> Iterator[tuple[str, list[str], list[str]]]:
    for paragraph in re.split(r"\n\s*\n", text):
        fields: dict[str, list[str]] = {}
        for line in re.sub(r"\n\s+", " ", paragraph).splitlines():
            name, _, value = line.partition(":")
            fields[name.strip().lower()] = value.split()
        if "deb" in fields.get("types", []) and fields.get("uris"):
            suites, components = fields.get("suites", []), fields.get("components", [])
            yield fields["uris"][0], suites, components


def _call(command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=1800
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserlandError(f"{command[0]}: {error}") from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()[-5:]
        raise UserlandError(f"{' '.join(command[:4])} failed:\n" + "\n".join(lines))


def main(arguments: Sequence[str]) -> int:
    """Makes all userlands, or runs Python in one; returns the exit code."""
    missing = missing_programs()
    if missing:
        print(f"missing: {', '.join(missing)}; on Debian: {INSTALL}", file=sys.stderr)
        return 2
    try:
        if arguments:
            userland = USERLANDS[arguments[0]]
            command, environment = python_command(
                userland, make_userland(userland), *arguments[1:]
            )
            return subprocess.run(command, env=environment).returncode
        for userland in USERLANDS.values():
            start = time.monotonic()
            folder = make_userland(userland)
            print(f"{folder}  {time.monotonic() - start:.0f} s")
    except (UserlandError, KeyError) as error:
        print(f"{error}; known: {', '.join(USERLANDS)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
