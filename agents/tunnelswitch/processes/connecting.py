"""How processes and people get to the bus and the epoch store: as whom, by which servers, where the leader is best."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

from tunnelswitch.adapters.nats_bus import NatsBus
from tunnelswitch.adapters.nats_epochs import NatsEpochs
from tunnelswitch.bus.access import JETSTREAM_API, Access
from tunnelswitch.config import Deployment
from tunnelswitch.pki.identities import OPERATOR, OPERATOR_STORE, STORE_API, VIEWER, Identity
from tunnelswitch.processes.parts import started

OPERATOR_CONNECT_SECONDS = 5.0


def access(deployment: Deployment, identity: Identity) -> Access:
    """How `identity` gets into the deployment's bus.

    Raises:
        BusError: its key, the credentials or the certificates cannot be used.
    """
    cluster = deployment.cluster
    return Access(
        seed=str(identity.seed(Path(cluster.keys))) if cluster.keys else None,
        credentials=cluster.credentials or None,
        ca=cluster.tls.ca if cluster.tls else None,
        inbox=identity.inbox,
        jetstream_api=STORE_API if cluster.keys else JETSTREAM_API,
    )


def epoch_store(
    deployment: Deployment, identity: Identity, preferred_url: str | None = None, *, awaited: bool = False
) -> NatsEpochs:
    """The deployment's epoch store, as `identity` may use it. `awaited`: a command's, see `NatsEpochs`.

    Raises:
        BusError: as `access`.
    """
    cluster = deployment.cluster
    return NatsEpochs(
        cluster.nats_urls,
        cluster=cluster.name,
        source=identity.name,
        servers=leading_order(deployment),
        preferred_url=preferred_url,
        access=access(deployment, identity),
        awaited=awaited,
    )


def leading_order(deployment: Deployment) -> dict[str, str]:
    """NATS node by site. A leader is best at a gateway or witness: never at the active site."""
    order = sorted(deployment.sites.items(), key=lambda item: item[1].kind == "server")
    return {site: description.nats_server for site, description in order}


@contextlib.asynccontextmanager
async def operator_epochs(deployment: Deployment) -> AsyncIterator[NatsEpochs]:
    """The epoch store as a person at any site uses it, connected.

    Raises:
        BusUnreachableError: no server lets us in.
    """
    async with started(epoch_store(deployment, OPERATOR_STORE, awaited=True)) as epochs:
        await epochs.require(OPERATOR_CONNECT_SECONDS)
        yield epochs


@contextlib.asynccontextmanager
async def operator_bus(
    deployment: Deployment, kinds: Iterable[str], emit: Callable[[object], None]
) -> AsyncIterator[NatsBus]:
    """The bus as a person at any site uses it, connected.

    Raises:
        BusUnreachableError: no server lets us in.
    """
    async with _persons_bus(deployment, OPERATOR, kinds, emit) as bus:
        yield bus


@contextlib.asynccontextmanager
async def viewer_bus(
    deployment: Deployment, kinds: Iterable[str], emit: Callable[[object], None]
) -> AsyncIterator[NatsBus]:
    """The bus as who only listens hears it, connected.

    Raises:
        BusUnreachableError: no server lets us in.
    """
    async with _persons_bus(deployment, VIEWER, kinds, emit) as bus:
        yield bus


@contextlib.asynccontextmanager
async def _persons_bus(
    deployment: Deployment, identity: Identity, kinds: Iterable[str], emit: Callable[[object], None]
) -> AsyncIterator[NatsBus]:
    cluster = deployment.cluster
    bus = NatsBus(
        cluster.nats_urls,
        cluster=cluster.name,
        source=identity.name,
        kinds=kinds,
        emit=emit,
        access=access(deployment, identity),
        awaited=True,
    )
    async with started(bus):
        await bus.require(OPERATOR_CONNECT_SECONDS)
        yield bus
