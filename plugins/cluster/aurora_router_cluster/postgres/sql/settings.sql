-- What shows of `rds.extensions`, an engine's own setting, in pg_settings; run after the surface of either engine.

CREATE OR REPLACE VIEW pg_catalog.pg_settings AS
SELECT * FROM pg_catalog.pg_show_all_settings() AS a
UNION ALL
SELECT 'rds.extensions'::text, pg_catalog.current_setting('rds.extensions'), NULL::text, 'Customized Options'::text,
       'Extensions that this engine offers.'::text, NULL::text, 'internal'::text, 'string'::text, 'default'::text,
       NULL::text, NULL::text, NULL::text[], pg_catalog.current_setting('rds.extensions'),
       pg_catalog.current_setting('rds.extensions'), NULL::text, NULL::integer, false;
