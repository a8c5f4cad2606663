#!/bin/sh
# Writes the password file from the secrets and becomes the broker. The files are the broker's own,
# readable for nobody else, as Mosquitto wants them.
set -eu
umask 077
{
  printf 'kraken:%s\n' "$(cat /run/secrets/mqtt_logger_password)"
  printf 'publisher:%s\n' "$(cat /run/secrets/mqtt_publisher_password)"
} >/tmp/passwords
mosquitto_passwd -U /tmp/passwords
cat /mosquitto/config/acl >/tmp/acl
exec mosquitto -c /mosquitto/config/mosquitto.conf
