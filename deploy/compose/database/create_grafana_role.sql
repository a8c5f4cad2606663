-- A role that reads the tables, for Grafana.
\set ON_ERROR_STOP on
\set password `cat /run/secrets/database_grafana_password`
CREATE ROLE grafana LOGIN PASSWORD :'password';
GRANT SELECT ON ALL TABLES IN SCHEMA public TO grafana;
-- Those too that `schema` makes later, as this user.
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO grafana;
