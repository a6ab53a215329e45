"""The tables. A change here needs a migration in migrations/versions; a test compares the two.

Times are microseconds since the epoch (UTC). A digest is stored as its text. A manifest's
bytes lie in its row, so that a manifest and what it refers to appear in one transaction.
"""

from datetime import UTC, datetime, timedelta

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy import Text as _Text

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Timestamp(TypeDecorator[datetime]):
    """An aware UTC datetime, stored as an integer that every database sorts and compares alike."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else (value - EPOCH) // timedelta(microseconds=1)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        return None if value is None else EPOCH + timedelta(microseconds=value)


# Sorted by its bytes, as the distribution spec sorts tags and as SQLite does by itself; PostgreSQL
# would sort it as a language does.
Text = _Text().with_variant(_Text(collation="C"), "postgresql")

# SQLite numbers rows by itself only for INTEGER PRIMARY KEY.
_BigId = BigInteger().with_variant(Integer, "sqlite")


def _index_of_set(name: str, column: str) -> Index:
    """An index of the rows that have the column.

    With those that do not, which are nearly all, it would be the index that SQLite chooses for
    `column IS NULL`, before one that finds the few that are asked for.
    """
    return _partial_index(name, column, f"{column} IS NOT NULL")


def _partial_index(name: str, column: str, condition: str) -> Index:
    where = text(condition)
    return Index(name, column, sqlite_where=where, postgresql_where=where)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# --- identity -----------------------------------------------------------------------------

organizations = Table(
    "organizations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    # Since when it is not there for anybody; its row stays for what refers to it.
    Column("deleted_at", Timestamp),
)

users = Table(
    "users",
    metadata,
    Column("id", Text, primary_key=True),
    # What a local user signs in with, in lower case; of a user of an OpenID Connect provider a
    # name to show. Unlike any other user's.
    Column("name", Text, nullable=False, unique=True),
    # argon2's encoding; NULL where none was set.
    Column("password_hash", Text),
    # Who the user is to an OpenID Connect provider.
    Column("oidc_issuer", Text),
    Column("oidc_subject", Text),
    # May create organizations; sees none for it.
    Column("is_admin", Boolean, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    UniqueConstraint("oidc_issuer", "oidc_subject"),
)

# A user's role in an organization: "owner", "member" or "viewer".
memberships = Table(
    "memberships",
    metadata,
    Column("user_id", ForeignKey("users.id"), primary_key=True),
    Column("organization_id", ForeignKey("organizations.id"), primary_key=True, index=True),
    Column("role", Text, nullable=False),
    Column("created_at", Timestamp, nullable=False),
)

# What lets whoever holds its secret join an organization, once.
invitations = Table(
    "invitations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("secret_hash", LargeBinary, nullable=False, unique=True),
    Column("organization_id", ForeignKey("organizations.id"), nullable=False, index=True),
    Column("role", Text, nullable=False),
    # For whom it was made, in its maker's words.
    Column("note", Text, nullable=False),
    Column("created_by", ForeignKey("users.id"), nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("expires_at", Timestamp, nullable=False, index=True),
)

projects = Table(
    "projects",
    metadata,
    Column("id", Text, primary_key=True),
    Column("organization_id", ForeignKey("organizations.id"), nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    # How long what is saved or pushed lives, unless it is said with it.
    Column("retention_seconds", BigInteger, nullable=False),
    # The longest that can be said.
    Column("max_retention_seconds", BigInteger, nullable=False),
    Column("extends_on_pull", Boolean, nullable=False),
    # The most that its blobs may take, uploads under way included; NULL is no limit.
    Column("quota_bytes", BigInteger),
    # As an organization's.
    Column("deleted_at", Timestamp),
)

# Whose ID tokens open a project, without a secret of ours: CI jobs, pods.
trust_policies = Table(
    "trust_policies",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False, index=True),
    Column("name", Text, nullable=False),
    # "github", "gitlab", "circleci", "buildkite", "kubernetes" or "generic".
    Column("provider", Text, nullable=False),
    Column("issuer", Text, nullable=False, index=True),
    Column("audience", Text, nullable=False),
    # A JSON object: each claim that has to be there, and its pattern.
    Column("claims", Text, nullable=False),
    # "project" or "pull".
    Column("grants", Text, nullable=False),
    Column("created_by", ForeignKey("users.id")),
    Column("created_at", Timestamp, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", Text, primary_key=True),
    # "user", "organization", "project", "pull" or "build".
    Column("kind", Text, nullable=False),
    # SHA-256 of the secret: 160 random bits need no salt and no slow hash.
    Column("secret_hash", LargeBinary, nullable=False, unique=True),
    # NULL for a user's: it acts for the user in every organization that it is a member of.
    Column("organization_id", ForeignKey("organizations.id"), index=True),
    Column("user_id", ForeignKey("users.id"), index=True),
    Column("project_id", ForeignKey("projects.id"), index=True),
    Column("build_id", Text, index=True),
    # Of a build's token: the tags it may write, separated by spaces.
    Column("tags", Text),
    Column("description", Text, nullable=False),
    # The user who made it; NULL where another token or the server did.
    Column("created_by", ForeignKey("users.id")),
    # The token, of no user, that made it: it ends with that one.
    Column("parent_id", ForeignKey("tokens.id", ondelete="CASCADE"), index=True),
    # The policy by which an ID token was traded for it: it ends with that one.
    Column("trust_policy_id", ForeignKey("trust_policies.id", ondelete="CASCADE"), index=True),
    Column("created_at", Timestamp, nullable=False),
    # To the minute, or so.
    Column("last_used_at", Timestamp),
    Column("expires_at", Timestamp, index=True),
    # Since when it opens nothing; the row stays for a while for those who ask what it was.
    Column("revoked_at", Timestamp),
    _index_of_set("ix_tokens_revoked_at", "revoked_at"),
)

# Who is signed in to the pages, by the hash of the cookie's secret.
sessions = Table(
    "sessions",
    metadata,
    Column("secret_hash", LargeBinary, primary_key=True),
    Column("user_id", ForeignKey("users.id"), nullable=False, index=True),
    Column("created_at", Timestamp, nullable=False),
    Column("expires_at", Timestamp, nullable=False, index=True),
)

# Command lines that wait for a user to approve their login.
login_requests = Table(
    "login_requests",
    metadata,
    # The hash of the ID that the command line holds; nobody else ever sees it.
    Column("id_hash", LargeBinary, primary_key=True),
    # What the user compares.
    Column("user_code", Text, nullable=False, unique=True),
    # Where it came from, and what it called itself.
    Column("address", Text, nullable=False),
    Column("user_agent", Text, nullable=False),
    # Who approved it.
    Column("user_id", ForeignKey("users.id")),
    Column("denied_at", Timestamp),
    Column("created_at", Timestamp, nullable=False),
    Column("expires_at", Timestamp, nullable=False, index=True),
)

# Who did what, from where, and how it ended.
audit_events = Table(
    "audit_events",
    metadata,
    Column("id", _BigId, primary_key=True),
    Column("at", Timestamp, nullable=False, index=True),
    # Whose log it is in: an organization's, and of it a project's. IDs and no foreign keys: what
    # was tried on what never was is logged too, and the log outlives what it tells of.
    Column("organization_id", Text),
    Column("project_id", Text),
    # "user", "organization", "project", "pull", "build", "ci" or "nobody".
    Column("actor_kind", Text, nullable=False),
    Column("actor_id", Text),
    Column("actor_name", Text, nullable=False),
    # As "tokens.create" or "manifests.push".
    Column("action", Text, nullable=False),
    # What it was done to.
    Column("subject", Text, nullable=False),
    # "done", "denied" or "failed".
    Column("result", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    # What else there is to know, as a JSON object.
    Column("details", Text, nullable=False),
    Index("ix_audit_events_organization_id_at_id", "organization_id", "at", "id"),
    Index("ix_audit_events_project_id_at_id", "project_id", "at", "id"),
)

# Keys that every replica shares, such as the one that signs registry tokens.
server_keys = Table(
    "server_keys",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

# What one replica at a time does, such as collecting.
server_leases = Table(
    "server_leases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("expires_at", Timestamp, nullable=False),
)

# --- registry -----------------------------------------------------------------------------

repositories = Table(
    "repositories",
    metadata,
    Column("id", _BigId, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False, index=True),
    Column("created_at", Timestamp, nullable=False),
)

# The bytes that the blob store holds, whole and verified, whoever may see them.
blobs = Table(
    "blobs",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    # Where the blob store holds them. Every upload gets a place of its own, so that bytes which
    # are being removed are never those of a later upload of the same digest.
    Column("key", Text, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    # Since when the bytes are known not to be the digest's; the next upload replaces them.
    Column("quarantined_at", Timestamp),
)

# Bytes that no row names any more; the collector removes them and then the row.
doomed_objects = Table(
    "doomed_objects",
    metadata,
    Column("key", Text, primary_key=True),
    Column("digest", Text, nullable=False, index=True),
    Column("doomed_at", Timestamp, nullable=False),
)

# What a repository may show: a blob is visible only where it is linked, and there only by a
# manifest that lives or for a while after it was brought.
repository_blobs = Table(
    "repository_blobs",
    metadata,
    Column("repository_id", ForeignKey("repositories.id"), primary_key=True),
    Column("digest", ForeignKey("blobs.digest"), primary_key=True, index=True),
    Column("linked_at", Timestamp, nullable=False),
    # A client that may push was told that it is there: it stays until then.
    Column("leased_until", Timestamp, nullable=False),
    # Uploaded or mounted, and named by no manifest since: visible until then.
    Column("shown_until", Timestamp),
    # When the collector looks whether anything needs it; NULL while a manifest does.
    Column("check_at", Timestamp),
    # A push to another registry reads it: its bytes stay until then. No more than that: unlike a
    # lease it lets no manifest name the blob, so that what is over does not come back by it.
    Column("kept_until", Timestamp),
    _index_of_set("ix_repository_blobs_check_at", "check_at"),
)

manifests = Table(
    "manifests",
    metadata,
    Column("repository_id", ForeignKey("repositories.id"), primary_key=True),
    Column("digest", Text, primary_key=True),
    Column("media_type", Text, nullable=False),
    Column("artifact_type", Text),
    # The digest of the manifest that this one is a referrer of.
    Column("subject", Text),
    # Its annotations as a JSON object, for the referrers list.
    Column("annotations", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("pushed_at", Timestamp, nullable=False),
    # As in repository_blobs; NULL is never.
    Column("leased_until", Timestamp),
    # When the collector looks whether anything retains it; NULL while something does.
    Column("check_at", Timestamp),
    # As in repository_blobs.
    Column("kept_until", Timestamp),
    _index_of_set("ix_manifests_check_at", "check_at"),
    Index("ix_manifests_repository_id_subject_digest", "repository_id", "subject", "digest"),
)

# Why content lives, and until when: a build, or the push of one manifest outside of a build.
retentions = Table(
    "retentions",
    metadata,
    Column("id", _BigId, primary_key=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    # Of a build; not a foreign key, because it outlives the build's row by its collection.
    Column("build_id", Text, unique=True),
    # Of a push: the repository and the manifest.
    Column("repository_id", ForeignKey("repositories.id")),
    Column("digest", Text),
    Column("created_at", Timestamp, nullable=False),
    # NULL while a build runs: it has no end yet.
    Column("expires_at", Timestamp, index=True),
    # Its time is over for good; what it retained is being collected.
    Column("ended_at", Timestamp),
    # Why: "expired", "deleted" or "superseded".
    Column("end_reason", Text),
    Index("ix_retentions_repository_id_digest", "repository_id", "digest"),
    _index_of_set("ix_retentions_ended_at", "ended_at"),
)

# What a retention retains: every manifest that it reaches, by index and by subject. A manifest is
# visible while one that retains it lives.
retained_manifests = Table(
    "retained_manifests",
    metadata,
    Column("retention_id", ForeignKey("retentions.id"), primary_key=True),
    Column("repository_id", ForeignKey("repositories.id"), primary_key=True),
    Column("digest", Text, primary_key=True),
    Index("ix_retained_manifests_repository_id_digest", "repository_id", "digest"),
)

# What is gone, and why, for those who may know; forgotten after a while.
tombstones = Table(
    "tombstones",
    metadata,
    Column("project_id", ForeignKey("projects.id"), primary_key=True),
    # The repository's name; empty for a build.
    Column("repository", Text, primary_key=True),
    # A tag, a digest or a build's ID.
    Column("reference", Text, primary_key=True),
    # "expired" or "deleted".
    Column("reason", Text, nullable=False),
    Column("gone_at", Timestamp, nullable=False, index=True),
    # A build's ID is asked for without its project.
    _partial_index("ix_tombstones_reference", "reference", "repository = ''"),
)

# What a collected build leaves: first what has to go, then what became of it, signed.
receipts = Table(
    "receipts",
    metadata,
    Column("build_id", Text, primary_key=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False, index=True),
    Column("ended_at", Timestamp, nullable=False),
    # What the build retained when it ended, and why it ended, as JSON.
    Column("held", Text, nullable=False),
    # The signed document and its signature; NULL until everything is decided.
    Column("document", LargeBinary),
    Column("signature", LargeBinary),
    Column("signed_at", Timestamp, index=True),
)

# What a manifest needs: blobs of an image, child manifests of an index.
manifest_references = Table(
    "manifest_references",
    metadata,
    Column("repository_id", ForeignKey("repositories.id"), primary_key=True),
    Column("manifest_digest", Text, primary_key=True),
    Column("digest", Text, primary_key=True),
    # "blob" or "manifest".
    Column("kind", Text, nullable=False),
    Index("ix_manifest_references_repository_id_digest", "repository_id", "digest"),
)

tags = Table(
    "tags",
    metadata,
    Column("repository_id", ForeignKey("repositories.id"), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("digest", Text, nullable=False),
    # The build that saved it. Under its own ID nobody else may write; a save tag moves on.
    Column("build_id", Text, index=True),
    # It is visible while this one lives.
    Column("retention_id", ForeignKey("retentions.id"), nullable=False, index=True),
    Column("updated_at", Timestamp, nullable=False),
    Index("ix_tags_repository_id_digest", "repository_id", "digest"),
)

# What a running build named. Its end makes tags of them, all at once, or none when it failed.
staged_tags = Table(
    "staged_tags",
    metadata,
    Column("build_id", ForeignKey("builds.id", ondelete="CASCADE"), primary_key=True),
    Column("repository_id", ForeignKey("repositories.id"), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("digest", Text, nullable=False),
    Index("ix_staged_tags_repository_id_digest", "repository_id", "digest"),
)

uploads = Table(
    "uploads",
    metadata,
    Column("id", Text, primary_key=True),
    Column("repository_id", ForeignKey("repositories.id"), nullable=False),
    # How many bytes count; what was written beyond was never acknowledged.
    Column("size_bytes", BigInteger, nullable=False),
    # Where the blob store holds them: a JSON list of [key, bytes].
    Column("parts", Text, nullable=False),
    # The digest of those bytes, where they were hashed on their way; any replica goes on with it.
    Column("digest", Text),
    # What a request under way announced beyond them; it counts for the project's quota.
    Column("reserved_bytes", BigInteger, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("expires_at", Timestamp, nullable=False, index=True),
)

# --- builds -------------------------------------------------------------------------------

builds = Table(
    "builds",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    # "created", "running", "finished", "failed" or "canceled".
    Column("status", Text, nullable=False),
    # "build" or "bake".
    Column("command", Text, nullable=False),
    Column("save", Boolean, nullable=False),
    # How long it lives from its end.
    Column("retention_seconds", BigInteger, nullable=False),
    # What the client asked for, an entry a target, as a JSON list.
    Column("options", Text, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("started_at", Timestamp),
    # When its client was last heard of.
    Column("seen_at", Timestamp, nullable=False),
    Column("finished_at", Timestamp),
    Column("error", Text),
    # What its reports took so far, so that a report checks the limits without counting rows.
    Column("step_count", Integer, nullable=False),
    Column("log_size_bytes", BigInteger, nullable=False),
    Index("ix_builds_project_id_created_at_id", "project_id", "created_at", "id"),
    Index("ix_builds_status_seen_at", "status", "seen_at"),
)

build_steps = Table(
    "build_steps",
    metadata,
    Column("build_id", ForeignKey("builds.id", ondelete="CASCADE"), primary_key=True),
    Column("digest", Text, primary_key=True),
    # The order in which the steps were first reported.
    Column("position", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("started_at", Timestamp),
    Column("completed_at", Timestamp),
    Column("cached", Boolean, nullable=False),
    Column("error", Text),
)

build_logs = Table(
    "build_logs",
    metadata,
    Column("id", _BigId, primary_key=True),
    Column("build_id", ForeignKey("builds.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("step_digest", Text, nullable=False),
    Column("timestamp", Timestamp, nullable=False),
    # 1 for standard output, 2 for standard error.
    Column("stream", Integer, nullable=False),
    Column("message", LargeBinary, nullable=False),
)

build_dockerfiles = Table(
    "build_dockerfiles",
    metadata,
    Column("build_id", ForeignKey("builds.id", ondelete="CASCADE"), primary_key=True),
    # Empty for a plain build.
    Column("target", Text, primary_key=True),
    Column("filename", Text, nullable=False),
    Column("contents", Text, nullable=False),
)

# Which builder works for which live build: its load. A lease ends with its build, so that the
# table has a row a build that runs, however many there were.
builder_leases = Table(
    "builder_leases",
    metadata,
    Column("build_id", ForeignKey("builds.id", ondelete="CASCADE"), primary_key=True),
    Column("platform", Text, primary_key=True),
    Column("builder", Text, nullable=False, index=True),
    Column("acquired_at", Timestamp, nullable=False),
)

# Which builder a project's cache is warm on.
builder_affinities = Table(
    "builder_affinities",
    metadata,
    Column("project_id", ForeignKey("projects.id"), primary_key=True),
    Column("platform", Text, primary_key=True),
    Column("builder", Text, nullable=False),
    Column("used_at", Timestamp, nullable=False),
)

# --- pushes to other registries -----------------------------------------------------------

pushes = Table(
    "pushes",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    # Not a foreign key: it goes on where its build is over.
    Column("build_id", Text, nullable=False),
    # The bake target; empty for a plain build.
    Column("target", Text, nullable=False),
    # The digest of the manifest in the project's own repository.
    Column("source", Text, nullable=False),
    # JSON lists of [registry, repository, tag], and of OS/ARCH[/VARIANT].
    Column("destinations", Text, nullable=False),
    Column("platforms", Text, nullable=False),
    Column("with_referrers", Boolean, nullable=False),
    # "queued", "running", "done", "failed" or "canceled".
    Column("status", Text, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    # Who asked for it, in words.
    Column("created_by", Text, nullable=False),
    Column("started_at", Timestamp),
    Column("finished_at", Timestamp, index=True),
    Column("error", Text),
    # The digest of what the tags name at the destinations.
    Column("digest", Text),
    # A JSON list of [registry, repository]: the places that need another authorization.
    Column("waits_for", Text, nullable=False),
    # Since when it is asked to stop.
    Column("canceled_at", Timestamp),
    # The server that works on it, and until when it does without saying so again. In no index:
    # they change with every report, and PostgreSQL writes a row alone where no index changes.
    Column("holder", Text),
    Column("leased_until", Timestamp),
    # How often a server went on with what another had begun.
    Column("takeovers", Integer, nullable=False),
    Index("ix_pushes_project_id_created_at_id", "project_id", "created_at", "id"),
    Index("ix_pushes_project_id_status", "project_id", "status"),
    Index("ix_pushes_status_created_at_id", "status", "created_at", "id"),
)

# The blobs of a push on their way. A row each, of which a report writes those that moved: of
# hundreds a few are on their way at a time, and all of them in one text would be written anew
# twice a second.
push_transfers = Table(
    "push_transfers",
    metadata,
    Column("push_id", ForeignKey("pushes.id", ondelete="CASCADE"), primary_key=True),
    Column("registry", Text, primary_key=True),
    Column("repository", Text, primary_key=True),
    Column("digest", Text, primary_key=True),
    # The order in which they were first reported.
    Column("position", Integer, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sent_bytes", BigInteger, nullable=False),
    # "waiting", "sending", "exists", "mounted" or "sent".
    Column("state", Text, nullable=False),
)

# What a push shows the registries, sealed by the servers' key; gone with the push's end.
push_authorizations = Table(
    "push_authorizations",
    metadata,
    Column("push_id", ForeignKey("pushes.id", ondelete="CASCADE"), primary_key=True),
    Column("registry", Text, primary_key=True),
    Column("repository", Text, primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
)
