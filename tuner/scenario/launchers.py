"""Keys of `[server]` that speak of one launcher alone, and what an address looks like."""

from tuner.scenario.containers import DOCKER_KEYS

KEYS_OF = (
    ("docker", DOCKER_KEYS, "containers"),
    ("running", ("address", "metrics_url", "tls"), "a server that runs already"),
)
"""By launcher: the keys that mean something for it alone, and whose they are."""

ADDRESS = r"unix:.+|(\[[^]]+\]|[^:\s]+):[0-9]{1,5}"
PAGE_URL = r"http://[^/\s:]+(:[0-9]{1,5})?/\S*"
