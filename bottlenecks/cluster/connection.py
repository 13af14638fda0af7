"""An address -> Ray, quietly, or one line that says why not."""

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from bottlenecks.config import CLIENT, LOCAL, check_cluster, host_and_port
from bottlenecks.errors import ClusterError, one_line, shown
from bottlenecks.network.names import AUTO

ANSWER_SECONDS = 10.0  # that an address has to answer in
_STORE_BYTES = 2**29  # of memory that a cluster of this machine alone has for what is sent
# What Ray's servers know: that of a cluster, and that of clients that are not in it.
_ASKED = {
    False: "/ray.rpc.NodeInfoGcsService/GetClusterId",
    True: "/ray.rpc.RayletDriver/ClusterInfo",
}
# Ray's own words, of which only what this program makes of them is for people.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@contextlib.contextmanager
def connected(address: str) -> Iterator[ModuleType]:
    """The ``ray`` module, connected to the cluster at ``address``; what was started here ends.

    A connection that the process has already is used, and stays. Raises `UsageError` where Ray is
    not installed, and `ClusterError` where nothing answers.
    """
    check_cluster(address)
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield ray
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        _connect(ray, address)
        _set_back(handlers)  # which Ray has taken
        yield ray
    finally:
        ray.shutdown()
        _set_back(handlers)


def _connect(ray: Any, address: str) -> None:
    if address == AUTO:
        address = _of_this_machine() or AUTO
    place = host_and_port(address)
    if place is not None and (problem := _problem(*place, address.startswith(CLIENT))):
        raise ClusterError(f"the cluster {shown(address)} {problem}")
    options = {"num_cpus": None, "object_store_memory": _STORE_BYTES, "include_dashboard": False}
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level="CRITICAL",
            **(options if address == LOCAL else {}),
        )
    except Exception as error:  # Ray raises many kinds
        what = "there is none that this machine is in" if address == AUTO else one_line(error)
        raise ClusterError(
            f"cannot use the cluster {shown(address)}: {what}; start one (ray start --head), or "
            "take --cluster local"
        ) from error


def _of_this_machine() -> str:
    """The address of the cluster that was started last on this machine, if Ray has noted one."""
    noted = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster")
    with contextlib.suppress(OSError, ValueError):
        return os.environ.get("RAY_ADDRESS") or noted.read_text("ascii").strip()
    return ""


def _problem(host: str, port: int, is_client: bool) -> str:
    """Why Ray cannot be used there, or nothing.

    Ray itself would try for minutes, and end the process.
    """
    silent = "does not answer; look at the address, and at the machine: ray status"
    try:
        with socket.create_connection((host, port), ANSWER_SECONDS):
            pass
        import grpc
    except ImportError:
        return ""
    except OSError:
        return silent
    named = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    with grpc.insecure_channel(named) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=ANSWER_SECONDS)
            channel.unary_unary(_ASKED[is_client])(b"", timeout=ANSWER_SECONDS)
        except grpc.FutureTimeoutError:
            return silent
        except grpc.RpcError as error:  # Ray may want to be asked otherwise
            if error.code() == grpc.StatusCode.UNIMPLEMENTED:
                return "is no cluster of Ray; look at the address"
            if error.code() == grpc.StatusCode.UNAUTHENTICATED and not _has_token():
                return "wants Ray's token: set RAY_AUTH_MODE=token, as on its machines"
    return ""


def _has_token() -> bool:
    return os.environ.get("RAY_AUTH_MODE", "") not in ("", "disabled")


def _set_back(handlers: dict[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        with contextlib.suppress(ValueError):  # not in the main thread, where Ray takes none
            signal.signal(number, handler)
