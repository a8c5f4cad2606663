-- The logger's role. `kraken-logger init --grant kraken` lets it read and fill the tables; beyond
-- that it may do nothing, not even create temporary tables.
\set ON_ERROR_STOP on
\set password `cat /run/secrets/database_logger_password`
CREATE ROLE kraken LOGIN PASSWORD :'password';
REVOKE TEMPORARY ON DATABASE sensors FROM PUBLIC;
