-- The SQL surface of an RDS Multi-AZ DB cluster, as clients see it, with the grants that its extension needs there. Run
-- as surface.sql is: a statement ends with a semicolon and an empty line.
--
-- It reads the same file, aurora_status.json, whose rows have an endpoint and a port for it. What an instance says of
-- its own role comes from pg_is_in_recovery(), never from there: a writer's source is itself at the moment of its
-- promotion, and a reader's source is another instance.

CREATE SCHEMA rds_tools;

CREATE FUNCTION rds_tools.dbi_resource_id() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog
AS $$ SELECT 'db-' || upper(substr(md5(pg_read_file('aurora_status.json')::json ->> 'instance'), 1, 26)) $$;

CREATE FUNCTION rds_tools.multi_az_db_cluster_source_dbi_resource_id() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog
AS $$
SELECT CASE WHEN pg_is_in_recovery() THEN
  (SELECT 'db-' || upper(substr(md5(r ->> 'server_id'), 1, 26))
   FROM (SELECT pg_read_file('aurora_status.json')::json AS content) AS file, json_array_elements(content -> 'rows') AS r
   WHERE (r ->> 'writer')::bool AND r ->> 'server_id' <> content ->> 'instance' LIMIT 1)
  ELSE rds_tools.dbi_resource_id() END
$$;

CREATE FUNCTION rds_tools.show_topology(
    client text DEFAULT '',
    OUT id text,
    OUT endpoint text,
    OUT port integer)
RETURNS SETOF record
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog
AS $$
SELECT 'db-' || upper(substr(md5(r.server_id), 1, 26)), r.endpoint, r.port
FROM json_to_recordset(pg_read_file('aurora_status.json')::json -> 'rows') AS r(
    server_id text, endpoint text, port integer)
$$;

GRANT USAGE ON SCHEMA rds_tools TO PUBLIC;
