-- Creates a role for Grafana that reads the tables. Safe to repeat, for instance to set another
-- password.
\set ON_ERROR_STOP on
\set password `cat /run/secrets/database_grafana_password`
SELECT 'CREATE ROLE grafana'
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'grafana') \gexec
ALTER ROLE grafana LOGIN PASSWORD :'password';
GRANT SELECT ON ALL TABLES IN SCHEMA public TO grafana;
-- Also the tables that the service `schema` creates later, as this user.
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO grafana;
