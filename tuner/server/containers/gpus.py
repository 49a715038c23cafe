"""The names of this host's GPUs, as NVIDIA's driver tells them without any library."""

from pathlib import Path

DRIVER = Path("/proc/driver/nvidia/gpus")


def gpu_names(driver: Path = DRIVER) -> tuple[str, ...]:
    """List the models of all GPUs, by bus address; none where there is no driver."""
    names = []
    for file in sorted(driver.glob("*/information")):
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except OSError:
            continue
        names += [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]
    return tuple(names)
