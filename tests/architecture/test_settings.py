"""Settings: what would lose or repeat work is refused at start, in words that name the setting."""

from __future__ import annotations

import ast
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError

from app.domain.quota import Quota
from app.kernel.settings import MICROSOFT_HOSTS, Environment, Settings
from app.services.registering.polling import poll_policy
from tests.architecture.source import sources

KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
PRODUCTION: dict[str, Any] = {
    "environment": "production",
    "database_url": "postgresql://registrar:secret@database/registrar?sslmode=require",
    "redis_url": "rediss://redis:6379/0",
    "secret_keys": KEY,
}


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tests' caller has set says nothing about the settings themselves."""
    for name in list(os.environ):
        if name.startswith("REGISTRAR_"):
            monkeypatch.delenv(name)


def refusal(**values: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        Settings(**values)
    return str(caught.value)


def test_the_defaults_are_valid() -> None:
    assert Settings().environment is Environment.DEVELOPMENT


def test_a_complete_production_is_valid() -> None:
    assert Settings(**PRODUCTION).environment is Environment.PRODUCTION


@pytest.mark.parametrize(
    ("shorter", "longer", "consequence"),
    [
        ("upstream_timeout_s", "step_timeout_s", "claimed a second time"),
        ("step_timeout_s", "lease_s", "claimed a second time"),
        ("lease_s", "sweep_patience_s", "reported as stuck"),
    ],
)
@pytest.mark.parametrize("excess", [0, 1])
def test_a_deadline_must_end_before_the_one_around_it(
    shorter: str, longer: str, consequence: str, excess: int
) -> None:
    values: dict[str, Any] = {shorter: getattr(Settings(), longer) + excess}
    words = refusal(**values)
    assert f"REGISTRAR_{shorter.upper()}" in words
    assert f"must be smaller than REGISTRAR_{longer.upper()}" in words
    assert consequence in words


def test_deadlines_may_move_together() -> None:
    longer = Settings(upstream_timeout_s=200, step_timeout_s=300, lease_s=400, sweep_patience_s=500)
    assert longer.lease.total_seconds() == 400


def test_a_worker_must_show_life_several_times_in_a_lease() -> None:
    words = refusal(heartbeat_s=31)
    assert "REGISTRAR_HEARTBEAT_S must be at most a quarter of REGISTRAR_LEASE_S" in words
    assert Settings(heartbeat_s=30).silence == Settings().lease


def test_a_webhook_must_answer_before_its_claim_ends() -> None:
    assert "REGISTRAR_WEBHOOK_TIMEOUT_S must be smaller than" in refusal(webhook_timeout_s=120)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"poll_first_s": 61},
            "REGISTRAR_POLL_FIRST_S (61) must not be larger than REGISTRAR_POLL_CEILING_S (60)",
        ),
        ({"poll_ceiling_s": 3600}, "REGISTRAR_POLL_CEILING_S must be smaller than REGISTRAR_POLL_DEADLINE_S"),
        ({"poll_deadline_s": 60}, "REGISTRAR_POLL_CEILING_S must be smaller than REGISTRAR_POLL_DEADLINE_S"),
    ],
)
def test_polls_that_no_schedule_can_make_are_refused_at_start_and_not_at_the_first_poll(
    values: dict[str, Any], words: str
) -> None:
    assert words in refusal(**values)
    assert poll_policy(Settings(poll_first_s=60, poll_ceiling_s=60)).first.total_seconds() == 60


@pytest.mark.parametrize(
    "name",
    [
        "import_retention_days",
        "consent_valid_days",
        "hash_retention_days",
        "event_retention_days",
        "idempotency_hours",
    ],
)
def test_a_time_to_keep_something_must_lead_to_a_date(name: str) -> None:
    """It is taken from today and added to it; there is no year 0."""
    for value in (999_999, "inf"):
        assert "less than or equal to" in refusal(**{name: value})
    longest: dict[str, Any] = {name: 36_500}
    assert getattr(Settings(**longest), name) == 36_500


def test_the_sweep_looks_before_it_complains() -> None:
    values = {"upstream_timeout_s": 1, "step_timeout_s": 2, "webhook_timeout_s": 1, "heartbeat_s": 1}
    words = refusal(**values, lease_s=4, sweep_patience_s=5)
    assert "REGISTRAR_SWEEP_INTERVAL_S must be smaller than REGISTRAR_SWEEP_PATIENCE_S" in words


@pytest.mark.parametrize("name", sorted(MICROSOFT_HOSTS))
@pytest.mark.parametrize(
    "url",
    [
        "http://{host}",
        "https://{host}.attacker.example",
        "https://attacker.example/{host}",
        "https://{host}@attacker.example",
        "https://127.0.0.1:8090",
        "",
    ],
)
def test_production_speaks_to_microsoft_only(name: str, url: str) -> None:
    (host,) = MICROSOFT_HOSTS[name]
    words = refusal(**PRODUCTION, **{name: url.format(host=host)})
    assert f"REGISTRAR_{name.upper()} must be https at {host} in production" in words


@pytest.mark.parametrize("name", sorted(MICROSOFT_HOSTS))
def test_development_may_speak_to_a_stand_in(name: str) -> None:
    values: dict[str, Any] = {name: "http://127.0.0.1:8090/"}
    assert getattr(Settings(**values), name) == "http://127.0.0.1:8090"


@pytest.mark.parametrize("missing", ["database_url", "redis_url", "secret_keys"])
def test_production_has_no_embedded_servers_and_no_generated_key(missing: str) -> None:
    words = refusal(**{key: value for key, value in PRODUCTION.items() if key != missing})
    assert f"production needs REGISTRAR_{missing.upper()}" in words


@pytest.mark.parametrize(
    ("name", "url", "server"),
    [
        ("database_url", "postgresql://registrar:secret@database/registrar", "postgresql"),
        (
            "migration_database_url",
            "postgresql://owner:secret@database/registrar?sslmode=prefer",
            "postgresql",
        ),
        ("redis_url", "redis://:secret@redis:6379/0", "redis"),
    ],
)
def test_production_speaks_to_its_databases_in_clear_text_only_where_it_is_said(
    name: str, url: str, server: str
) -> None:
    values = {**PRODUCTION, name: url}
    words = refusal(**values)
    assert "in clear text" in words
    assert f"set REGISTRAR_ALLOW_CLEAR_TEXT={server}" in words
    other = {"postgresql": "redis", "redis": "postgresql"}[server]
    assert "in clear text" in refusal(**values, allow_clear_text=other)
    assert getattr(Settings(**values, allow_clear_text=f"{other}, {server}"), name) == url
    development: dict[str, Any] = {name: url}
    assert getattr(Settings(**development), name) == url


def test_clear_text_is_allowed_for_servers_that_exist() -> None:
    assert "use postgresql, redis or both" in refusal(allow_clear_text="postgres")


@pytest.mark.parametrize("name", ["database_url", "migration_database_url"])
def test_a_mode_of_encryption_that_does_not_exist_is_refused_at_start(name: str) -> None:
    words = refusal(**{name: "postgresql://u:hidden@database/registrar?sslmode=yes"})
    assert "sslmode=yes does not exist" in words


def test_production_sends_webhooks_over_tls_only() -> None:
    assert "REGISTRAR_WEBHOOK_ALLOW_HTTP" in refusal(**PRODUCTION, webhook_allow_http=True)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRAR_LEASE_S", "200")
    monkeypatch.setenv("REGISTRAR_DATABASE_URL", "")
    monkeypatch.setenv("REGISTRAR_WEBHOOK_ALLOWED_NETWORKS", "10.0.0.0/8, 192.168.1.0/24")
    monkeypatch.setenv("REGISTRAR_SECRET_KEYS", f"{KEY}, {KEY}")
    settings = Settings()
    assert settings.lease_s == 200
    assert settings.database_url is None
    assert settings.webhook_allowed_networks == ("10.0.0.0/8", "192.168.1.0/24")
    assert [key.get_secret_value() for key in settings.secret_keys] == [KEY, KEY]


def test_secret_keys_do_not_show_when_settings_are_printed() -> None:
    assert KEY not in repr(Settings(secret_keys=KEY))


def test_a_network_must_be_one() -> None:
    assert "10.0.0.0/33" in refusal(webhook_allowed_networks="10.0.0.0/33")


@pytest.mark.parametrize("network", ["0.0.0.0/0", "::/0", "127.0.0.0/8", "169.254.0.0/16:80"])
def test_production_opens_no_network_that_no_webhook_may_reach(network: str) -> None:
    assert Settings(webhook_allowed_networks=network).webhook_allowed_networks == (network,)
    said = refusal(**PRODUCTION, webhook_allowed_networks=f"10.0.0.0/8,{network}")
    assert f"REGISTRAR_WEBHOOK_ALLOWED_NETWORKS: {network} has " in said


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        Settings().lease_s = 5  # type: ignore[misc]


def settings_read() -> set[str]:
    """Every name taken from the settings: outside their own modules, or in a property that is taken there."""
    taken: set[str] = set()
    properties: dict[str, set[str]] = {}
    for source in sources("app", "workers"):
        if source.path.endswith("kernel/settings.py"):
            properties |= properties_of(source.tree)
            continue
        taken |= {
            node.attr
            for node in ast.walk(source.tree)
            if isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith("settings")
        }
    assert properties
    return taken.union(*(properties[name] for name in taken & properties.keys()))


def properties_of(tree: ast.Module) -> dict[str, set[str]]:
    """What each property in it reads."""
    return {
        function.name: {node.attr for node in ast.walk(function) if isinstance(node, ast.Attribute)}
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        and any(ast.unparse(decorator) == "property" for decorator in function.decorator_list)
    }


def test_every_setting_is_read() -> None:
    """Quotas are read together, by the names in `Quota`; clear text is only allowed or refused at start."""
    read = settings_read()
    assert "quotas" in read
    read |= {f"quota_{quota.value}" for quota in Quota}
    assert Settings.model_fields.keys() - read == {"allow_clear_text"}


def test_every_setting_says_what_it_means() -> None:
    silent = [name for name, field in Settings.model_fields.items() if not field.description]
    assert silent == []


def test_every_duration_has_its_unit_in_its_name() -> None:
    timed = {
        name
        for name, field in Settings.model_fields.items()
        if field.description and field.description.startswith(("Seconds", "Hours", "Days"))
    }
    assert timed
    assert [name for name in timed if not name.endswith(("_s", "_hours", "_days"))] == []


def made_authority(*, ca: bool) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Contoso CA")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize("ca", [True, False], ids=["authority", "a server's own certificate"])
def test_a_companys_own_authority_is_taken(tmp_path: Path, ca: bool) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(made_authority(ca=ca))
    assert Settings(webhook_ca_file=file).webhook_ca_file == file
    assert Settings.model_validate({"webhook_ca_file": ""}).webhook_ca_file is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "is no PEM file of certificates"),
        (b"-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n", "is no PEM file"),
        (b"\x30\x82\x01", "is no PEM file"),
    ],
    ids=["missing", "empty", "damaged", "der"],
)
def test_a_file_of_authorities_that_cannot_be_used_is_refused_at_start(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    said = refusal(webhook_ca_file=file)
    assert f"{file} {words}" in said
    assert "webhook_ca_file" in said
