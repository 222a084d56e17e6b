# Run once by the image of PostgreSQL, when it makes the cluster (see compose.yaml).
# Registrar's login is no superuser, so that row-level security binds it. It may make roles, because the
# first migration makes two. The superuser is left without a password: it enters inside the container only.
psql --username=postgres --dbname=postgres -v ON_ERROR_STOP=1 -v password="$POSTGRES_PASSWORD" <<'SQL'
CREATE ROLE registrar LOGIN NOSUPERUSER CREATEROLE PASSWORD :'password';
CREATE DATABASE registrar OWNER registrar;
REVOKE ALL ON DATABASE registrar FROM PUBLIC;
REVOKE CONNECT ON DATABASE postgres FROM PUBLIC;
ALTER ROLE postgres PASSWORD NULL;
SQL
