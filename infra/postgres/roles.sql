-- The roles and the database of a local instance; run as the superuser, as often as one likes.
-- The passwords are known to everyone, which is right only because the server listens on 127.0.0.1:
-- production makes the same roles with passwords of its own (docs/operations.md).

-- The service roles are made here, before the migration that grants to them, so that they may log
-- in; the migration leaves a role that exists as it is.
SELECT format('CREATE ROLE %I', role)
FROM unnest(ARRAY['postonce', 'postonce_api', 'postonce_publisher', 'postonce_worker']) AS role
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) \gexec

-- The owner runs the migrations; tests let it make databases.
ALTER ROLE postonce LOGIN CREATEDB CREATEROLE PASSWORD 'postonce';
ALTER ROLE postonce_api LOGIN PASSWORD 'postonce_api';
ALTER ROLE postonce_publisher LOGIN PASSWORD 'postonce_publisher';
ALTER ROLE postonce_worker LOGIN PASSWORD 'postonce_worker';

SELECT 'CREATE DATABASE postonce OWNER postonce'
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'postonce') \gexec
