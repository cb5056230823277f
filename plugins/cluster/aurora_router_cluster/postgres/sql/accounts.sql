-- The user's role, which may do what an RDS master user may of these, and database; run after surface.sql, in the database postgres.

CREATE ROLE app LOGIN CREATEDB CREATEROLE PASSWORD 'app';

CREATE DATABASE app OWNER app;
