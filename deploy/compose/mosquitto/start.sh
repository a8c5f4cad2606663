#!/bin/sh
# Writes the password file from the secrets, then executes the broker. The broker owns the files, and
# no other user can read them, as Mosquitto requires.
set -eu
umask 077
{
  printf 'kraken:%s\n' "$(cat /run/secrets/mqtt_logger_password)"
  printf 'publisher:%s\n' "$(cat /run/secrets/mqtt_publisher_password)"
} >/tmp/passwords
mosquitto_passwd -U /tmp/passwords
cat /mosquitto/config/acl >/tmp/acl
exec mosquitto -c /mosquitto/config/mosquitto.conf
