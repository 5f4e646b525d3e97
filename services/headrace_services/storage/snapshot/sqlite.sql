CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL, 
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

-- Running upgrade  -> 0001

CREATE TABLE workspaces (
    id SMALLINT NOT NULL, 
    name TEXT NOT NULL, 
    PRIMARY KEY (id), 
    UNIQUE (name)
);

INSERT INTO workspaces (id, name) VALUES (1, 'default');

CREATE TABLE deleted_runs (
    id BLOB NOT NULL, 
    delete_time BIGINT NOT NULL, 
    PRIMARY KEY (id)
);

CREATE TABLE flows (
    id BLOB NOT NULL, 
    workspace_id SMALLINT DEFAULT '1' NOT NULL, 
    name TEXT NOT NULL, 
    create_time BIGINT NOT NULL, 
    PRIMARY KEY (id), 
    CONSTRAINT flows_name_key UNIQUE (workspace_id, name)
);

CREATE TABLE logs (
    seq INTEGER NOT NULL, 
    xid BIGINT DEFAULT '0' NOT NULL, 
    workspace_id SMALLINT DEFAULT '1' NOT NULL, 
    run_id BLOB NOT NULL, 
    root_run_id BLOB NOT NULL, 
    time BIGINT NOT NULL, 
    level SMALLINT NOT NULL, 
    logger TEXT NOT NULL, 
    message TEXT NOT NULL, 
    rest BLOB, 
    PRIMARY KEY (seq)
);

CREATE INDEX logs_commit_idx ON logs (xid, seq);

CREATE INDEX logs_root_idx ON logs (root_run_id, time, seq);

CREATE INDEX logs_run_idx ON logs (run_id, time, seq);

CREATE INDEX logs_time_idx ON logs (time, seq);

CREATE TABLE markers (
    name TEXT NOT NULL, 
    value TEXT NOT NULL, 
    PRIMARY KEY (name)
);

CREATE TABLE outbox (
    seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
    xid BIGINT DEFAULT '0' NOT NULL, 
    kind SMALLINT NOT NULL, 
    keys BLOB NOT NULL, 
    record_time BIGINT NOT NULL
);

CREATE INDEX outbox_commit_idx ON outbox (xid, seq);

CREATE INDEX outbox_time_idx ON outbox (record_time);

CREATE TABLE recorders (
    id BLOB NOT NULL, 
    workspace_id SMALLINT DEFAULT '1' NOT NULL, 
    durable_seq BIGINT NOT NULL, 
    is_sealed BOOLEAN NOT NULL, 
    expires_at BIGINT, 
    replica_id TEXT NOT NULL, 
    host TEXT NOT NULL, 
    pid BIGINT NOT NULL, 
    sdk TEXT NOT NULL, 
    create_time BIGINT NOT NULL, 
    update_time BIGINT NOT NULL, 
    dropped_logs BIGINT NOT NULL, 
    dropped_spans BIGINT NOT NULL, 
    PRIMARY KEY (id), 
    CONSTRAINT recorders_sealed_check CHECK (NOT is_sealed OR expires_at IS NULL)
);

CREATE INDEX recorders_lease_idx ON recorders (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE requests (
    method TEXT NOT NULL, 
    request_id TEXT NOT NULL, 
    workspace_id SMALLINT DEFAULT '1' NOT NULL, 
    digest BLOB NOT NULL, 
    response BLOB NOT NULL, 
    create_time BIGINT NOT NULL, 
    PRIMARY KEY (method, request_id)
);

CREATE INDEX requests_time_idx ON requests (create_time);

CREATE TABLE run_states (
    run_id BLOB NOT NULL, 
    seq INTEGER NOT NULL, 
    id BLOB NOT NULL, 
    type SMALLINT NOT NULL, 
    name TEXT NOT NULL, 
    event_time BIGINT NOT NULL, 
    record_time BIGINT NOT NULL, 
    body BLOB NOT NULL, 
    PRIMARY KEY (run_id, seq), 
    CONSTRAINT run_states_id_key UNIQUE (run_id, id)
)
 WITHOUT ROWID;

CREATE TABLE run_tags (
    workspace_id SMALLINT DEFAULT '1' NOT NULL, 
    tag TEXT NOT NULL, 
    kind SMALLINT NOT NULL, 
    state_type SMALLINT NOT NULL, 
    create_time BIGINT NOT NULL, 
    run_id BLOB NOT NULL, 
    PRIMARY KEY (workspace_id, tag, kind, state_type, create_time, run_id)
)
 WITHOUT ROWID;

CREATE TABLE runs (
    id BLOB NOT NULL, 
    workspace_id SMALLINT DEFAULT '1' NOT NULL, 
    kind SMALLINT NOT NULL, 
    flow_id BLOB, 
    name TEXT NOT NULL, 
    task_name TEXT, 
    root_run_id BLOB NOT NULL, 
    parent_run_id BLOB, 
    owner_run_id BLOB NOT NULL, 
    recorder_id BLOB, 
    deployment_id TEXT, 
    work_pool TEXT, 
    work_queue TEXT, 
    idempotency_key TEXT, 
    create_digest BLOB, 
    tags TEXT, 
    state_type SMALLINT NOT NULL, 
    state_name TEXT NOT NULL, 
    state_id BLOB, 
    state_time BIGINT, 
    state_seq INTEGER NOT NULL, 
    is_presumed BOOLEAN NOT NULL, 
    attempt INTEGER NOT NULL, 
    fence BIGINT NOT NULL, 
    run_count INTEGER NOT NULL, 
    flow_run_count INTEGER NOT NULL, 
    is_resuming BOOLEAN NOT NULL, 
    retry_type SMALLINT NOT NULL, 
    pause_keys TEXT NOT NULL, 
    create_time BIGINT NOT NULL, 
    start_time BIGINT, 
    end_time BIGINT, 
    expected_start_time BIGINT, 
    next_scheduled_start_time BIGINT, 
    total_run_time BIGINT NOT NULL, 
    version BIGINT NOT NULL, 
    spec BLOB NOT NULL, 
    full_spec BLOB, 
    PRIMARY KEY (id), 
    CONSTRAINT runs_state_check CHECK ((state_type = 0) = (state_id IS NULL)), 
    CONSTRAINT runs_end_check CHECK ((state_type IN (6, 7, 8, 9)) = (end_time IS NOT NULL)), 
    CONSTRAINT runs_kind_check CHECK (kind IN (1, 2)), 
    CONSTRAINT runs_counts_check CHECK (run_count >= 0 AND total_run_time >= 0 AND fence >= 1 AND attempt >= 1), 
    CONSTRAINT runs_state_type_check CHECK (state_type BETWEEN 0 AND 9)
);

CREATE INDEX runs_expected_start_time_idx ON runs (workspace_id, expected_start_time, id) WHERE kind = 1;

CREATE INDEX runs_flow_idx ON runs (flow_id, state_type, create_time, id) WHERE kind = 1;

CREATE UNIQUE INDEX runs_idempotency_key ON runs (flow_id, idempotency_key) WHERE idempotency_key IS NOT NULL;

CREATE INDEX runs_name_idx ON runs (workspace_id, name, id) WHERE kind = 1;

CREATE INDEX runs_recorder_idx ON runs (recorder_id) WHERE recorder_id IS NOT NULL AND state_type NOT IN (6, 7, 8, 9);

CREATE INDEX runs_root_idx ON runs (root_run_id, create_time, id);

CREATE INDEX runs_start_time_idx ON runs (workspace_id, start_time, id) WHERE kind = 1;

CREATE INDEX runs_state_idx ON runs (workspace_id, kind, state_type, create_time, id);

CREATE TABLE spans (
    seq INTEGER NOT NULL, 
    workspace_id SMALLINT DEFAULT '1' NOT NULL, 
    run_id BLOB NOT NULL, 
    root_run_id BLOB NOT NULL, 
    trace_id TEXT NOT NULL, 
    start_time BIGINT NOT NULL, 
    body BLOB NOT NULL, 
    PRIMARY KEY (seq)
);

CREATE INDEX spans_root_idx ON spans (root_run_id, start_time, seq);

CREATE INDEX spans_run_idx ON spans (run_id, start_time, seq);

CREATE INDEX spans_trace_idx ON spans (trace_id, start_time, seq);

INSERT INTO alembic_version (version_num) VALUES ('0001') RETURNING version_num;

-- Running upgrade 0001 -> 0002

CREATE TABLE run_inputs (
    seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
    xid BIGINT DEFAULT '0' NOT NULL, 
    workspace_id SMALLINT DEFAULT '1' NOT NULL, 
    run_id BLOB NOT NULL, 
    "key" TEXT NOT NULL, 
    value BLOB NOT NULL, 
    sender TEXT NOT NULL, 
    create_time BIGINT NOT NULL, 
    CONSTRAINT run_inputs_key UNIQUE (run_id, "key")
);

CREATE INDEX run_inputs_run_idx ON run_inputs (run_id, xid, seq);

CREATE TABLE timers (
    kind SMALLINT NOT NULL, 
    run_id BLOB NOT NULL, 
    workspace_id SMALLINT DEFAULT '1' NOT NULL, 
    state_id BLOB NOT NULL, 
    due_time BIGINT NOT NULL, 
    PRIMARY KEY (kind, run_id)
)
 WITHOUT ROWID;

CREATE INDEX timers_due_idx ON timers (kind, due_time);

UPDATE alembic_version SET version_num='0002' WHERE alembic_version.version_num = '0001';

-- Running upgrade 0002 -> 0003

CREATE TABLE work_pools (
    id BLOB NOT NULL, 
    workspace_id SMALLINT DEFAULT '1' NOT NULL, 
    name TEXT NOT NULL, 
    type TEXT NOT NULL, 
    description TEXT NOT NULL, 
    is_paused BOOLEAN NOT NULL, 
    concurrency_limit INTEGER, 
    base_job_template TEXT NOT NULL, 
    create_time BIGINT NOT NULL, 
    update_time BIGINT NOT NULL, 
    version BIGINT NOT NULL, 
    PRIMARY KEY (id), 
    CONSTRAINT work_pools_name_key UNIQUE (workspace_id, name)
);

CREATE TABLE work_queues (
    id BLOB NOT NULL, 
    workspace_id SMALLINT DEFAULT '1' NOT NULL, 
    pool_id BLOB NOT NULL, 
    name TEXT NOT NULL, 
    description TEXT NOT NULL, 
    priority INTEGER NOT NULL, 
    is_paused BOOLEAN NOT NULL, 
    is_default BOOLEAN NOT NULL, 
    concurrency_limit INTEGER, 
    create_time BIGINT NOT NULL, 
    update_time BIGINT NOT NULL, 
    version BIGINT NOT NULL, 
    PRIMARY KEY (id), 
    CONSTRAINT work_queues_priority_check CHECK (priority >= 1), 
    CONSTRAINT work_queues_name_key UNIQUE (pool_id, name)
);

CREATE INDEX work_queues_priority_idx ON work_queues (pool_id, priority);

CREATE TABLE deployments (
    id BLOB NOT NULL, 
    workspace_id SMALLINT DEFAULT '1' NOT NULL, 
    flow_id BLOB NOT NULL, 
    flow_name TEXT NOT NULL, 
    name TEXT NOT NULL, 
    is_paused BOOLEAN NOT NULL, 
    work_pool TEXT, 
    work_queue TEXT, 
    concurrency_limit INTEGER, 
    tags TEXT, 
    version_id BLOB NOT NULL, 
    version_number BIGINT NOT NULL, 
    create_time BIGINT NOT NULL, 
    update_time BIGINT NOT NULL, 
    created_by TEXT NOT NULL, 
    updated_by TEXT NOT NULL, 
    spec BLOB NOT NULL, 
    version BIGINT NOT NULL, 
    PRIMARY KEY (id), 
    CONSTRAINT deployments_name_key UNIQUE (workspace_id, flow_name, name)
);

CREATE INDEX deployments_flow_idx ON deployments (flow_id);

CREATE INDEX deployments_pool_idx ON deployments (work_pool, work_queue);

CREATE TABLE deployment_versions (
    id BLOB NOT NULL, 
    workspace_id SMALLINT DEFAULT '1' NOT NULL, 
    deployment_id BLOB NOT NULL, 
    number BIGINT NOT NULL, 
    digest TEXT NOT NULL, 
    create_time BIGINT NOT NULL, 
    created_by TEXT NOT NULL, 
    body BLOB NOT NULL, 
    PRIMARY KEY (id), 
    CONSTRAINT deployment_versions_number_key UNIQUE (deployment_id, number)
);

CREATE INDEX runs_deployment_idx ON runs (deployment_id, state_type, create_time, id) WHERE deployment_id IS NOT NULL;

UPDATE alembic_version SET version_num='0003' WHERE alembic_version.version_num = '0002';

-- Running upgrade 0003 -> 0004

CREATE TABLE schedules (
    id BLOB NOT NULL, 
    workspace_id SMALLINT DEFAULT '1' NOT NULL, 
    deployment_id BLOB NOT NULL, 
    slug TEXT, 
    is_paused BOOLEAN NOT NULL, 
    due_time BIGINT, 
    next_fire_time BIGINT, 
    last_fire_time BIGINT, 
    idle_since BIGINT, 
    missed_fires BIGINT NOT NULL, 
    skipped_fires BIGINT NOT NULL, 
    last_skip_reason TEXT NOT NULL, 
    disabled_reason TEXT NOT NULL, 
    create_time BIGINT NOT NULL, 
    update_time BIGINT NOT NULL, 
    created_by TEXT NOT NULL, 
    spec BLOB NOT NULL, 
    version BIGINT NOT NULL, 
    PRIMARY KEY (id), 
    CONSTRAINT schedules_slug_key UNIQUE (deployment_id, slug)
);

CREATE INDEX schedules_due_idx ON schedules (due_time) WHERE due_time IS NOT NULL;

CREATE INDEX schedules_deployment_idx ON schedules (deployment_id, create_time, id);

CREATE TABLE overlap_waits (
    run_id BLOB NOT NULL, 
    workspace_id SMALLINT DEFAULT '1' NOT NULL, 
    deployment_id BLOB NOT NULL, 
    schedule_id BLOB NOT NULL, 
    per_schedule BOOLEAN NOT NULL, 
    include_manual BOOLEAN NOT NULL, 
    scheduled_time BIGINT NOT NULL, 
    PRIMARY KEY (run_id)
);

CREATE INDEX overlap_waits_deployment_idx ON overlap_waits (deployment_id, scheduled_time);

UPDATE alembic_version SET version_num='0004' WHERE alembic_version.version_num = '0003';

-- Running upgrade 0004 -> 0005

DROP INDEX logs_commit_idx;

DROP INDEX outbox_commit_idx;

DROP INDEX outbox_time_idx;

UPDATE alembic_version SET version_num='0005' WHERE alembic_version.version_num = '0004';

-- Running upgrade 0005 -> 0006

CREATE TABLE queue_routes (
    id BIGINT NOT NULL, 
    workspace_id SMALLINT DEFAULT '1' NOT NULL, 
    kind SMALLINT NOT NULL, 
    subject TEXT NOT NULL, 
    queue TEXT NOT NULL, 
    labels TEXT NOT NULL, 
    PRIMARY KEY (id)
);

CREATE INDEX queue_routes_subject_idx ON queue_routes (kind, subject);

CREATE TABLE run_queue (
    run_id BLOB NOT NULL, 
    workspace_id SMALLINT DEFAULT '1' NOT NULL, 
    route BIGINT NOT NULL, 
    deployment_id TEXT, 
    priority SMALLINT NOT NULL, 
    pass_number BIGINT, 
    due_time BIGINT NOT NULL, 
    scheduled_time BIGINT NOT NULL, 
    aged_time BIGINT NOT NULL, 
    fairness_key TEXT NOT NULL, 
    blocked_by TEXT, 
    late_time BIGINT, 
    lost_count SMALLINT NOT NULL, 
    refusals SMALLINT NOT NULL, 
    excluded TEXT, 
    PRIMARY KEY (run_id)
);

CREATE INDEX run_queue_aged_idx ON run_queue (aged_time) WHERE pass_number IS NOT NULL AND blocked_by IS NULL;

CREATE INDEX run_queue_blocked_idx ON run_queue (blocked_by, due_time) WHERE blocked_by IS NOT NULL;

CREATE INDEX run_queue_due_idx ON run_queue (due_time) WHERE pass_number IS NULL;

CREATE INDEX run_queue_late_idx ON run_queue (late_time) WHERE late_time IS NOT NULL;

CREATE INDEX run_queue_turn_idx ON run_queue (route, priority DESC, pass_number, due_time, run_id) WHERE pass_number IS NOT NULL AND blocked_by IS NULL;

CREATE TABLE queue_passes (
    name TEXT NOT NULL, 
    scope TEXT NOT NULL, 
    pass_number BIGINT NOT NULL, 
    PRIMARY KEY (name)
);

CREATE INDEX queue_passes_scope_idx ON queue_passes (scope);

CREATE TABLE attempt_holders (
    run_id BLOB NOT NULL, 
    workspace_id SMALLINT DEFAULT '1' NOT NULL, 
    attempt INTEGER NOT NULL, 
    fence BIGINT NOT NULL, 
    assignment_id BLOB NOT NULL, 
    session_id BLOB, 
    worker_id BLOB NOT NULL, 
    kind SMALLINT NOT NULL, 
    subject TEXT NOT NULL, 
    queue TEXT NOT NULL, 
    deployment_id TEXT, 
    phase SMALLINT NOT NULL, 
    offer_time BIGINT NOT NULL, 
    slot_expire_time BIGINT, 
    infrastructure_id TEXT NOT NULL, 
    on_lost SMALLINT NOT NULL, 
    max_lost INTEGER NOT NULL, 
    lost_count SMALLINT NOT NULL, 
    refusals SMALLINT NOT NULL, 
    excluded TEXT, 
    PRIMARY KEY (run_id)
);

CREATE INDEX attempt_holders_deployment_idx ON attempt_holders (deployment_id) WHERE deployment_id IS NOT NULL;

CREATE INDEX attempt_holders_line_idx ON attempt_holders (kind, subject, queue);

CREATE INDEX attempt_holders_session_idx ON attempt_holders (session_id);

CREATE TABLE workers (
    id BLOB NOT NULL, 
    workspace_id SMALLINT DEFAULT '1' NOT NULL, 
    name TEXT NOT NULL, 
    kind SMALLINT NOT NULL, 
    work_pool TEXT NOT NULL, 
    create_time BIGINT NOT NULL, 
    update_time BIGINT NOT NULL, 
    body BLOB NOT NULL, 
    PRIMARY KEY (id)
);

CREATE INDEX workers_name_idx ON workers (name, id);

CREATE INDEX workers_pool_idx ON workers (work_pool, name, id);

CREATE TABLE worker_sessions (
    id BLOB NOT NULL, 
    workspace_id SMALLINT DEFAULT '1' NOT NULL, 
    worker_id BLOB NOT NULL, 
    epoch BIGINT NOT NULL, 
    replica_id TEXT NOT NULL, 
    expires_at BIGINT, 
    heartbeat_time BIGINT NOT NULL, 
    is_draining BOOLEAN NOT NULL, 
    drain_deadline BIGINT, 
    create_time BIGINT NOT NULL, 
    version BIGINT NOT NULL, 
    PRIMARY KEY (id)
);

CREATE INDEX worker_sessions_drain_idx ON worker_sessions (id) WHERE drain_deadline IS NOT NULL AND NOT is_draining;

CREATE INDEX worker_sessions_lease_idx ON worker_sessions (expires_at) WHERE expires_at IS NOT NULL;

CREATE INDEX worker_sessions_worker_idx ON worker_sessions (worker_id);

UPDATE alembic_version SET version_num='0006' WHERE alembic_version.version_num = '0005';

-- Running upgrade 0006 -> 0007

ALTER TABLE logs ADD COLUMN fields TEXT;

CREATE TABLE events (
    seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
    xid BIGINT DEFAULT '0' NOT NULL, 
    workspace_id SMALLINT DEFAULT '1' NOT NULL, 
    id BLOB NOT NULL, 
    event TEXT NOT NULL, 
    resource_id TEXT NOT NULL, 
    run_id BLOB, 
    occurred BIGINT NOT NULL, 
    record_time BIGINT NOT NULL, 
    rest BLOB NOT NULL
);

CREATE INDEX events_id_idx ON events (id);

CREATE INDEX events_time_idx ON events (occurred, seq);

CREATE INDEX events_event_idx ON events (event, occurred, seq);

CREATE INDEX events_resource_idx ON events (resource_id, occurred, seq);

CREATE INDEX events_run_idx ON events (run_id, occurred, seq);

UPDATE alembic_version SET version_num='0007' WHERE alembic_version.version_num = '0006';

-- Running upgrade 0007 -> 0008

CREATE TABLE locks (
    name TEXT NOT NULL, 
    workspace_id SMALLINT DEFAULT '1' NOT NULL, 
    holder TEXT NOT NULL, 
    fence BIGINT NOT NULL, 
    acquire_time BIGINT NOT NULL, 
    expire_time BIGINT NOT NULL, 
    hold_expire_time BIGINT, 
    lease BIGINT NOT NULL, 
    client TEXT NOT NULL, 
    PRIMARY KEY (name)
);

CREATE INDEX locks_expire_idx ON locks (expire_time);

CREATE TABLE cache_entries (
    name TEXT NOT NULL, 
    workspace_id SMALLINT DEFAULT '1' NOT NULL, 
    id BLOB NOT NULL, 
    producer_run_id BLOB NOT NULL, 
    task_name TEXT NOT NULL, 
    flow_name TEXT NOT NULL, 
    tags TEXT NOT NULL, 
    fence BIGINT NOT NULL, 
    create_time BIGINT NOT NULL, 
    expire_time BIGINT, 
    result BLOB NOT NULL, 
    PRIMARY KEY (name)
);

CREATE INDEX cache_entries_expire_idx ON cache_entries (expire_time) WHERE expire_time IS NOT NULL;

CREATE INDEX cache_entries_task_idx ON cache_entries (task_name);

UPDATE alembic_version SET version_num='0008' WHERE alembic_version.version_num = '0007';

-- Running upgrade 0008 -> 0009

CREATE TABLE teardowns (
    run_id BLOB NOT NULL, 
    fence BIGINT NOT NULL, 
    workspace_id SMALLINT DEFAULT '1' NOT NULL, 
    attempt INTEGER NOT NULL, 
    work_pool TEXT NOT NULL, 
    infrastructure_id TEXT NOT NULL, 
    due_time BIGINT NOT NULL, 
    deliveries SMALLINT NOT NULL, 
    tried TEXT NOT NULL, 
    PRIMARY KEY (run_id, fence)
);

CREATE INDEX teardowns_due_idx ON teardowns (due_time);

UPDATE alembic_version SET version_num='0009' WHERE alembic_version.version_num = '0008';

-- Running upgrade 0009 -> 0010

CREATE TABLE backfills (
    id BLOB NOT NULL, 
    workspace_id SMALLINT DEFAULT '1' NOT NULL, 
    deployment_id BLOB NOT NULL, 
    schedule_id BLOB NOT NULL, 
    state SMALLINT NOT NULL, 
    is_ready BOOLEAN NOT NULL, 
    rest_from BIGINT NOT NULL, 
    rest_until BIGINT NOT NULL, 
    create_time BIGINT NOT NULL, 
    update_time BIGINT NOT NULL, 
    end_time BIGINT, 
    spec BLOB NOT NULL, 
    schedule_spec BLOB NOT NULL, 
    version BIGINT NOT NULL, 
    PRIMARY KEY (id)
);

CREATE INDEX backfills_live_idx ON backfills (update_time) WHERE state <= 3;

CREATE INDEX backfills_time_idx ON backfills (create_time, id);

CREATE TABLE backfill_runs (
    backfill_id BLOB NOT NULL, 
    fire_time BIGINT NOT NULL, 
    workspace_id SMALLINT DEFAULT '1' NOT NULL, 
    run_id BLOB NOT NULL, 
    action SMALLINT NOT NULL, 
    is_open BOOLEAN NOT NULL, 
    outcome SMALLINT, 
    PRIMARY KEY (backfill_id, fire_time)
);

CREATE INDEX backfill_runs_open_idx ON backfill_runs (backfill_id) WHERE is_open;

UPDATE alembic_version SET version_num='0010' WHERE alembic_version.version_num = '0009';

-- Running upgrade 0010 -> 0011

ALTER TABLE schedules ADD COLUMN skips TEXT;

UPDATE alembic_version SET version_num='0011' WHERE alembic_version.version_num = '0010';

-- Running upgrade 0011 -> 0012

CREATE TABLE fairness_rules (
    work_pool TEXT NOT NULL, 
    fairness_key TEXT NOT NULL, 
    workspace_id SMALLINT DEFAULT '1' NOT NULL, 
    weight INTEGER NOT NULL, 
    concurrency_limit INTEGER, 
    create_time BIGINT NOT NULL, 
    update_time BIGINT NOT NULL, 
    version BIGINT NOT NULL, 
    PRIMARY KEY (work_pool, fairness_key)
);

ALTER TABLE work_pools ADD COLUMN has_key_limits BOOLEAN DEFAULT 0 NOT NULL;

ALTER TABLE attempt_holders ADD COLUMN fairness_key TEXT DEFAULT '' NOT NULL;

ALTER TABLE queue_passes ADD COLUMN weight INTEGER DEFAULT '1000' NOT NULL;

UPDATE queue_passes SET pass_number = pass_number * 1000000;

UPDATE run_queue SET pass_number = pass_number * 1000000 WHERE pass_number > 0;

UPDATE alembic_version SET version_num='0012' WHERE alembic_version.version_num = '0011';
