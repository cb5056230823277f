-- Aurora PostgreSQL's SQL surface, as clients see it. Run in single-user mode (-j) in every database of the
-- template: a statement ends with a semicolon and an empty line.
--
-- The control plane replaces the file aurora_status.json in the data directory atomically; it is
--   {"instance": id of the instance that reads it, "rows": [one object per instance of the cluster]}.
-- What an instance says about itself never comes from that file but from pg_is_in_recovery(): a promotion is
-- visible here in the same instant, and of two claims to be the writer the reader's own one is taken back.
-- Nor do its own positions in the log: they are those of the moment, and never ahead of the truth (of what a writer
-- has flushed, only what the storage has acknowledged counts).
-- A file, because custom settings do not show in pg_settings and can be set by any user.

CREATE FUNCTION pg_catalog.aurora_version() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog
AS $$ SELECT pg_catalog.split_part(pg_catalog.current_setting('server_version'), ' ', 1) $$;

CREATE FUNCTION pg_catalog.aurora_db_instance_identifier() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog
AS $$ SELECT pg_catalog.pg_read_file('aurora_status.json')::json ->> 'instance' $$;

CREATE FUNCTION pg_catalog.aurora_replica_status(
    OUT server_id text,
    OUT session_id text,
    OUT durable_lsn bigint,
    OUT highest_lsn_rcvd bigint,
    OUT current_read_lsn bigint,
    OUT cur_replay_latency_in_usec bigint,
    OUT active_txns bigint,
    OUT is_current boolean,
    OUT last_transport_error bigint,
    OUT last_error_timestamp timestamp with time zone,
    OUT last_update_timestamp timestamp with time zone,
    OUT feedback_xmin bigint,
    OUT feedback_epoch bigint,
    OUT replica_lag_in_msec bigint,
    OUT log_stream_speed_in_kib_per_second double precision,
    OUT log_buffer_sequence_number bigint,
    OUT oldest_read_view_trx_id bigint,
    OUT oldest_read_view_lsn bigint,
    OUT pending_read_ios bigint,
    OUT read_ios bigint,
    OUT iops integer,
    OUT cpu double precision)
RETURNS SETOF record
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog
AS $$
WITH file AS MATERIALIZED (
    SELECT pg_read_file('aurora_status.json')::json AS content, pg_is_in_recovery() AS is_reader
), own AS MATERIALIZED (
    SELECT CASE
             WHEN is_reader THEN pg_last_wal_replay_lsn()
             WHEN current_setting('synchronous_standby_names') = '' THEN pg_current_wal_flush_lsn()
             ELSE greatest(pg_last_wal_replay_lsn(),
               (SELECT max(flush_lsn) FROM pg_stat_replication WHERE application_name = 'aurora_storage'))
           END - '0/0' AS durable,
           CASE WHEN is_reader THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0' END
               AS received
    FROM file
), seen AS (
    SELECT r.*, own.durable AS own_durable, own.received AS own_received,
           r.server_id = content ->> 'instance' AS myself,
           CASE WHEN r.server_id = content ->> 'instance' THEN NOT is_reader ELSE r.writer AND is_reader END
               AS is_writer
    FROM file, own, json_to_recordset(content -> 'rows') AS r(
        server_id text, writer boolean, session text, durable_lsn bigint, highest_lsn_rcvd bigint,
        current_read_lsn bigint, cur_replay_latency_in_usec bigint, active_txns bigint,
        last_transport_error bigint, last_error_timestamp timestamptz, last_update_timestamp timestamptz,
        feedback_xmin bigint, feedback_epoch bigint, replica_lag_in_msec bigint,
        log_stream_speed_in_kib_per_second double precision, log_buffer_sequence_number bigint,
        oldest_read_view_lsn bigint, pending_read_ios bigint, read_ios bigint, cpu double precision)
)
SELECT server_id,
       CASE WHEN is_writer THEN 'MASTER_SESSION_ID' ELSE session END,
       CASE WHEN NOT myself THEN durable_lsn
            WHEN is_writer THEN greatest(own_durable::bigint, durable_lsn)
            ELSE coalesce(own_durable::bigint, durable_lsn) END,
       CASE WHEN NOT is_writer THEN CASE WHEN myself THEN own_received::bigint ELSE highest_lsn_rcvd END END,
       CASE WHEN NOT is_writer THEN CASE WHEN myself THEN own_durable::bigint ELSE current_read_lsn END END,
       CASE WHEN NOT is_writer THEN cur_replay_latency_in_usec END,
       active_txns,
       NULL::boolean,
       last_transport_error,
       last_error_timestamp,
       CASE WHEN NOT myself THEN last_update_timestamp END,
       CASE WHEN NOT is_writer THEN feedback_xmin END,
       CASE WHEN NOT is_writer THEN feedback_epoch END,
       CASE WHEN NOT is_writer THEN replica_lag_in_msec END,
       CASE WHEN NOT is_writer THEN log_stream_speed_in_kib_per_second END,
       log_buffer_sequence_number,
       NULL::bigint,
       CASE WHEN NOT is_writer THEN oldest_read_view_lsn END,
       pending_read_ios,
       read_ios,
       NULL::integer,
       cpu
FROM seen
$$;
