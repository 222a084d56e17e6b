"""Builds the API that uvicorn serves (`uvicorn --factory app.main:build`)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette_compress import CompressMiddleware, add_compress_type

from app import __version__
from app.api.connections import routes as connections
from app.api.contract import documentation, naming, problems, schema
from app.api.customers import routes as customers
from app.api.devices import routes as devices
from app.api.http import bodies, intake_relay
from app.api.http.answer_headers import AnswerHeaders
from app.api.http.conditional import ConditionalGet
from app.api.http.lifespan import StartupFailure, Unbounded, delayed_stop, require_bounds
from app.api.http.middleware import BodyCoding, BodyLimit, HeadLikeGet, RequestContext, VerbPaths
from app.api.http.peers import networks_of
from app.api.http.turns import CallTurns
from app.api.http.wrong_keys import WrongKeys
from app.api.imports import routes as imports
from app.api.imports import vendor_profiles
from app.api.orders import routes as orders
from app.api.portal import routes as portal
from app.api.removals import routes as removals
from app.api.service import catalogues, limits, metrics, own_key, status
from app.api.webhooks import routes as webhooks
from app.api.webhooks import schemas
from app.db.walls import WallsDown
from app.kernel import telemetry
from app.kernel.secrets import SecretError
from app.kernel.settings import Settings, load_or_exit
from app.kernel.telemetry import logger
from app.runtime import NoInstallation, Runtime, settle

log = logger("api")

MULTIPART_SLACK = 64 * 1024
"""The most bytes of a form besides its file."""
COMPRESSED_FROM = 1024
"""The fewest bytes of an answer to compress: smaller ones fit into one packet anyway."""

TAGS = [
    {"name": "Orders", "description": "Devices to register, as you order them."},
    {"name": "Imports", "description": "Files with devices, with a preview before they become orders."},
    {"name": "Registrations", "description": "One device in one order, and its outcome."},
    {"name": "Devices", "description": "What is known now about each device, over all orders."},
    {"name": "Batches", "description": "How orders are cut for Microsoft; read-only."},
    {"name": "Portal", "description": "Orders as files to upload by hand, where the API cannot be used."},
    {"name": "Customers", "description": "The customers that devices are registered for, and their consent."},
    {"name": "Connections", "description": "Your enrolments at Microsoft Partner Center."},
    {"name": "Webhooks", "description": "Notifications of events."},
    {"name": "Catalogues", "description": "Platforms, error codes, your own key."},
    {"name": "Service", "description": "Health of the service."},
]


def build(settings: Settings | None = None) -> FastAPI:
    """Builds the API. Without settings, reads the environment and exits if a setting is wrong."""
    settings = settings or load_or_exit()
    telemetry.configure(**settings.logging, process="api")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            require_bounds(settings)
            runtime = await Runtime.open(settings, process="api")
        except (Unbounded, NoInstallation, SecretError, WallsDown) as error:
            app.state.startup_failure = str(error)
            raise
        app.state.runtime = runtime
        settle()

        def tell() -> None:
            app.state.stopping = True
            log.info("stopping", pause_s=settings.shutdown_pause)

        try:
            with delayed_stop(settings.shutdown_pause, tell):
                yield
        finally:
            if (intake := getattr(app.state, "intake", None)) is not None:
                await asyncio.to_thread(intake.end)  # uvicorn ends this process by a signal after that
            await runtime.close()

    app = FastAPI(
        title="Registrar",
        version=__version__,
        lifespan=lifespan,
        openapi_tags=TAGS,
        openapi_url="/openapi.json",
        docs_url=None,  # documentation.install serves it
        redoc_url=None,  # its page loads files from other hosts
        separate_input_output_schemas=False,
        generate_unique_id_function=naming.operation_id,
        # A redirect would send the key to the host in the Host header.
        redirect_slashes=False,
    )
    app.state.wrong_keys = WrongKeys(settings.wrong_keys_per_minute)
    app.state.public_url = (settings.public_url or "").rstrip("/")
    for router in (
        catalogues.open_router,
        catalogues.router,
        own_key.router,
        orders.router,
        devices.router,
        imports.router,
        vendor_profiles.router,
        portal.router,
        customers.router,
        connections.router,
        webhooks.router,
        removals.router,
        limits.router,
        status.router,
    ):
        app.include_router(router)
    schemas.document(app)
    problems.install(app)
    intake_relay.install(app)
    schema.install(app)
    documentation.install(app, pages=settings.has_documentation)
    metrics.install(app, settings.metrics_allowed_networks)
    uploads = str(app.url_path_for("create_import"))
    app.add_middleware(VerbPaths, known=problems.methods_of_verb)
    app.add_middleware(BodyCoding, decoding=frozenset({uploads}))
    app.add_middleware(BodyLimit, limit_of=bodies.limits_of(app, _files(settings), settings.max_body_bytes))
    app.add_middleware(ConditionalGet)
    # BREACH does not apply: it needs a secret beside the attacker's text, in answers to many calls of a
    # browser that adds credentials by itself. Here no browser adds the key's header, and a secret is shown
    # only once, in the answer to a POST of the key's owner.
    for kind in ("text/csv", problems.MEDIA_TYPE):
        add_compress_type(kind)
    app.add_middleware(CompressMiddleware, minimum_size=COMPRESSED_FROM)
    app.add_middleware(HeadLikeGet)
    app.add_middleware(CallTurns)
    app.add_middleware(
        RequestContext,
        trusted=networks_of(settings.trusted_proxies),
        headers=AnswerHeaders(settings.public_url),
    )
    app.add_middleware(StartupFailure)
    return app


def _files(settings: Settings) -> dict[str, int]:
    """The most bytes of a body, by route, if the body is a file. The file itself is checked again."""
    # A form has some bytes around its file.
    return {
        "create_import": settings.max_import_bytes + MULTIPART_SLACK,
        "record_portal_result": portal.MAX_RESULT_BYTES,
    }
