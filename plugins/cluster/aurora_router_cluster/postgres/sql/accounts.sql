-- The user's role, which may do what an RDS master user may of these, and database; run after surface.sql, in the database postgres.

CREATE ROLE app LOGIN CREATEDB CREATEROLE PASSWORD 'app';

CREATE ROLE rds_iam;

-- Logs in by IAM token, where the cluster has that, and has no password; may use what is app's.
CREATE ROLE app_iam LOGIN IN ROLE rds_iam, app;

CREATE DATABASE app OWNER app;
