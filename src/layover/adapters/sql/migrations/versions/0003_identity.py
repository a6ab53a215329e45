"""Identity: roles, invitations, trust policies, revocation, sign-in, audit"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    for table in ("organizations", "projects"):
        with op.batch_alter_table(table) as batch:
            batch.add_column(sa.Column("deleted_at", sa.BigInteger(), nullable=True))
    _create_memberships()
    _extend_users()
    _create_trust_policies()
    _extend_tokens()
    _create_sign_in()
    _create_audit()


def _create_memberships() -> None:
    op.create_table(
        "memberships",
        _column("user_id", _TEXT),
        _column("organization_id", _TEXT),
        _column("role", _TEXT),
        _column("created_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("user_id", "organization_id", name="pk_memberships"),
        _refers("memberships", "user_id", "users"),
        _refers("memberships", "organization_id", "organizations"),
    )
    op.create_index("ix_memberships_organization_id", "memberships", ["organization_id"])
    # Whoever was there was its organization's administrator.
    op.execute(
        "INSERT INTO memberships (user_id, organization_id, role, created_at)"
        " SELECT id, organization_id, 'owner', created_at FROM users"
    )


def _extend_users() -> None:
    # Names were of one organization each, and all of them "admin".
    op.execute(
        "UPDATE users SET name = name || '-' || id WHERE EXISTS"
        " (SELECT 1 FROM users AS other WHERE other.name = users.name AND other.id < users.id)"
    )
    with op.batch_alter_table("users") as batch:
        batch.drop_constraint("fk_users_organization_id", type_="foreignkey")
        batch.drop_column("organization_id")
        for name in ("password_hash", "oidc_issuer", "oidc_subject"):
            batch.add_column(sa.Column(name, _TEXT, nullable=True))
        batch.add_column(
            sa.Column("is_admin", sa.Boolean(), nullable=False, server_default=sa.true())
        )
        batch.create_unique_constraint("uq_users_name", ["name"])
        batch.create_unique_constraint(
            "uq_users_oidc_issuer_oidc_subject", ["oidc_issuer", "oidc_subject"]
        )
    with op.batch_alter_table("users") as batch:
        batch.alter_column("is_admin", existing_type=sa.Boolean(), server_default=None)


def _create_trust_policies() -> None:
    op.create_table(
        "trust_policies",
        _column("id", _TEXT),
        _column("project_id", _TEXT),
        _column("name", _TEXT),
        _column("provider", _TEXT),
        _column("issuer", _TEXT),
        _column("audience", _TEXT),
        _column("claims", _TEXT),
        _column("grants", _TEXT),
        _column("created_by", _TEXT, nullable=True),
        _column("created_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name="pk_trust_policies"),
        _refers("trust_policies", "project_id", "projects"),
        _refers("trust_policies", "created_by", "users"),
    )
    for name in ("project_id", "issuer"):
        op.create_index(f"ix_trust_policies_{name}", "trust_policies", [name])


def _extend_tokens() -> None:
    # A token of a user's kind that named none acted for the organization.
    op.execute("UPDATE tokens SET kind = 'organization' WHERE kind = 'user' AND user_id IS NULL")
    with op.batch_alter_table("tokens") as batch:
        batch.alter_column("organization_id", existing_type=_TEXT, nullable=True)
        for name in ("created_by", "parent_id", "trust_policy_id"):
            batch.add_column(sa.Column(name, _TEXT, nullable=True))
        for name in ("last_used_at", "revoked_at"):
            batch.add_column(sa.Column(name, sa.BigInteger(), nullable=True))
        batch.create_foreign_key("fk_tokens_created_by", "users", ["created_by"], ["id"])
        batch.create_foreign_key(
            "fk_tokens_parent_id", "tokens", ["parent_id"], ["id"], ondelete="CASCADE"
        )
        batch.create_foreign_key(
            "fk_tokens_trust_policy_id",
            "trust_policies",
            ["trust_policy_id"],
            ["id"],
            ondelete="CASCADE",
        )
    for name in (
        "organization_id",
        "user_id",
        "project_id",
        "parent_id",
        "trust_policy_id",
        "revoked_at",
    ):
        op.create_index(f"ix_tokens_{name}", "tokens", [name])
    # It acts for its user, wherever that one is a member.
    op.execute("UPDATE tokens SET organization_id = NULL, created_by = user_id WHERE kind = 'user'")


def _create_sign_in() -> None:
    op.create_table(
        "invitations",
        _column("id", _TEXT),
        _column("secret_hash", sa.LargeBinary()),
        _column("organization_id", _TEXT),
        _column("role", _TEXT),
        _column("note", _TEXT),
        _column("created_by", _TEXT),
        _column("created_at", sa.BigInteger()),
        _column("expires_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name="pk_invitations"),
        sa.UniqueConstraint("secret_hash", name="uq_invitations_secret_hash"),
        _refers("invitations", "organization_id", "organizations"),
        _refers("invitations", "created_by", "users"),
    )
    op.create_table(
        "sessions",
        _column("secret_hash", sa.LargeBinary()),
        _column("user_id", _TEXT),
        _column("created_at", sa.BigInteger()),
        _column("expires_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("secret_hash", name="pk_sessions"),
        _refers("sessions", "user_id", "users"),
    )
    op.create_table(
        "login_requests",
        _column("id_hash", sa.LargeBinary()),
        _column("user_code", _TEXT),
        _column("address", _TEXT),
        _column("user_agent", _TEXT),
        _column("user_id", _TEXT, nullable=True),
        _column("denied_at", sa.BigInteger(), nullable=True),
        _column("created_at", sa.BigInteger()),
        _column("expires_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id_hash", name="pk_login_requests"),
        sa.UniqueConstraint("user_code", name="uq_login_requests_user_code"),
        _refers("login_requests", "user_id", "users"),
    )
    for table, name in (
        ("invitations", "organization_id"),
        ("invitations", "expires_at"),
        ("sessions", "user_id"),
        ("sessions", "expires_at"),
        ("login_requests", "expires_at"),
    ):
        op.create_index(f"ix_{table}_{name}", table, [name])


def _create_audit() -> None:
    op.create_table(
        "audit_events",
        _column("id", _BIG_ID),
        _column("at", sa.BigInteger()),
        _column("organization_id", _TEXT, nullable=True),
        _column("project_id", _TEXT, nullable=True),
        _column("actor_kind", _TEXT),
        _column("actor_id", _TEXT, nullable=True),
        _column("actor_name", _TEXT),
        _column("action", _TEXT),
        _column("subject", _TEXT),
        _column("result", _TEXT),
        _column("address", _TEXT),
        _column("request_id", _TEXT),
        _column("details", _TEXT),
        sa.PrimaryKeyConstraint("id", name="pk_audit_events"),
    )
    op.create_index("ix_audit_events_at", "audit_events", ["at"])
    for name in ("organization_id", "project_id"):
        op.create_index(f"ix_audit_events_{name}_at_id", "audit_events", [name, "at", "id"])


def _column(
    name: str, type_: sa.types.TypeEngine[Any], *, nullable: bool = False
) -> sa.Column[Any]:
    return sa.Column(name, type_, nullable=nullable)


def _refers(table: str, column: str, target: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [f"{target}.id"], name=f"fk_{table}_{column}")
