"""Joining a cluster: whether it answers, and whether it asks for a token.

A Ray cluster without token authentication runs the code of everybody who reaches its ports. Ray joins one in silence;
raydeck does only if it is told to.
"""

import os
import re
from typing import Any

from cluster import console
from cluster.placement import Placement

ANSWER_SECONDS = 5
OPEN = "is open to everybody who reaches it (no token)"


def address_of(placement: Placement) -> str:
    """Where a run happens: the flag's address, else RAY_ADDRESS, else ``local``."""
    return placement.address or os.environ.get("RAY_ADDRESS") or "local"


def check_access(address: str, insecure: bool) -> None:
    """Look at a cluster from outside, before it is joined.

    Args:
        address: ``HOST:PORT``, or auto.
        insecure: Join it though it asks for no token.

    Raises:
        ValueError: It does not answer, wants a token and there is none or another, or is open to everybody.
    """
    if "://" in address:
        fault = "cannot be asked for its token"
    else:
        store = control_store(address)
        guarded = asks_for_token(store)
        if guarded:
            use_token(address, store)
            return
        if guarded is None and os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
            return  # certificates, without which it was asked, let nobody else in
        if guarded is None:
            raise ValueError(
                f"no Ray cluster answers at {address}; check host and port (mostly 6379), and that it is up"
            )
        fault = OPEN
    accept_risk(address, fault, insecure, "start it with RAY_AUTH_MODE=token and join it by HOST:PORT")


def accept_risk(address: str, fault: str, insecure: bool, mend: str) -> None:
    """Warn loudly of a cluster that lets everybody in, or may do so.

    Raises:
        ValueError: ``insecure`` does not accept it; names the mend.
    """
    if not insecure:
        raise ValueError(f"the cluster at {address} {fault}; {mend}, or accept the risk with --insecure")
    console.warn(
        f"THE CLUSTER AT {address} {fault.upper()}: anybody on its network can run code on it, read your data and "
        "change your results; joined because of --insecure"
    )


def control_store(address: str) -> str:
    """``HOST:PORT`` of a cluster's control store, for ``auto`` as well.

    Raises:
        ValueError: There is none, several, or the address is none.
    """
    from ray._private.services import canonicalize_bootstrap_address_or_die

    if address != "auto" and not re.fullmatch(r"\[?[\w.:-]+\]?:\d+", address):
        raise ValueError(f"--address {address}: expected auto, local or HOST:PORT, e.g. 10.0.0.1:6379")
    if address != "auto":
        return address
    try:
        return canonicalize_bootstrap_address_or_die(address)
    except (ConnectionError, ValueError, OSError) as error:
        raise ValueError(f"no Ray cluster at {address}: {' '.join(str(error).split())[:200]}") from None


def asks_for_token(control_store: str, token: str | None = None) -> bool | None:
    """Whether a control store turns away who has no token, or this one; None if nothing answers."""
    import grpc

    with grpc.insecure_channel(control_store, options=(("grpc.enable_http_proxy", 0),)) as channel:
        ask: Any = channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetAllNodeInfo")
        try:
            ask(b"", timeout=ANSWER_SECONDS, metadata=[("authorization", f"Bearer {token}")] if token else None)
        except grpc.RpcError as error:
            return True if error.code() is grpc.StatusCode.UNAUTHENTICATED else None
    return False


def use_token(address: str, control_store: str) -> None:
    """Make Ray send the token that is set here: to an address that is named it does so only if it has been told to.

    Raises:
        ValueError: There is no token, or the cluster refuses it: Ray would ask again for 20 s, and then not say why.
    """
    from cluster.dashboard import find_token

    token = find_token()
    if token is None or asks_for_token(control_store, token):
        fault = "wants a token" if token is None else "refuses the token that is set here"
        raise ValueError(
            f"the cluster at {address} {fault}; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to its file"
        )
    if not os.environ.get("RAY_AUTH_MODE"):
        from ray._raylet import Config

        os.environ["RAY_AUTH_MODE"] = "token"
        Config.initialize("")  # what Ray has read of the environment may be older
