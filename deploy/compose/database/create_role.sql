-- Creates the role of the logger. `kraken-logger init --grant kraken` grants it the privileges to read
-- and fill the tables; it has no others, not even that of creating temporary tables.
\set ON_ERROR_STOP on
\set password `cat /run/secrets/database_logger_password`
CREATE ROLE kraken LOGIN PASSWORD :'password';
REVOKE TEMPORARY ON DATABASE sensors FROM PUBLIC;
