# The service (default target) and the simulator (--target simulator). Build from the repository's root:
#   docker build -t registrar .
#   docker build -t registrar-simulator --target simulator .

# `make image-digests` prints it with its digest.
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS packages
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/registrar
COPY deploy/requirements.lock /tmp/requirements.lock
# Nothing is compiled here, and nothing comes in whose hash is not in the lock file.
RUN /opt/registrar/bin/pip install --require-hashes --only-binary :all: -r /tmp/requirements.lock \
 && /opt/registrar/bin/pip uninstall --yes --quiet pip setuptools \
 && /opt/registrar/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/registrar/lib

FROM ${PYTHON_IMAGE} AS base
ENV PATH=/opt/registrar/bin:$PATH PYTHONPATH=/srv/registrar PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# A number, so that Kubernetes can see that it is not root.
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin registrar
WORKDIR /srv/registrar
COPY --from=packages /opt/registrar /opt/registrar

FROM base AS simulator
COPY simulator simulator
RUN python -m compileall -q --invalidation-mode unchecked-hash simulator
USER 10001:10001
EXPOSE 8090
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
  CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8090/control/clock', timeout=2)"]
# It can protect nothing: publish its port on a loopback address only.
ENTRYPOINT ["uvicorn", "simulator.main:app", "--host", "0.0.0.0", "--port", "8090", "--no-access-log", "--timeout-graceful-shutdown", "1"]

FROM base AS service
COPY app app
COPY workers workers
COPY migrations migrations
COPY alembic.ini alembic.ini
RUN python -m compileall -q --invalidation-mode unchecked-hash app workers migrations \
 && printf '#!/opt/registrar/bin/python\nimport sys\nfrom app.cli import main\nsys.exit(main())\n' > /opt/registrar/bin/registrar \
 && chmod 755 /opt/registrar/bin/registrar
# For a volume on which workers keep big files while they read them (REGISTRAR_SPOOL_DIR, as in
# deploy/compose.yaml): a new volume takes over the directory's owner.
RUN install --directory --owner=10001 --group=10001 --mode=0700 /var/spool/registrar
ENV REGISTRAR_ENVIRONMENT=production REGISTRAR_API_HOST=0.0.0.0 REGISTRAR_API_PORT=8000
USER 10001:10001
EXPOSE 8000
# Whether the API answers. A worker has no port: give its containers `registrar worker --probe` instead, as
# deploy/compose.yaml does.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
  CMD ["python", "-c", "import os; from urllib.request import urlopen; urlopen(f'http://127.0.0.1:{os.environ[\"REGISTRAR_API_PORT\"]}/healthz', timeout=2)"]
ENTRYPOINT ["registrar"]
CMD ["api"]
