# The image of Postroom: API, worker, migration and sandbox are one command with other arguments.
#
#   docker build -t postroom .
#   docker run --init --read-only --tmpfs /tmp --cap-drop ALL postroom --help
#
# As the container's first process the command ends in order on SIGTERM, once it is up. With --init (in a pod:
# shareProcessNamespace, which the chart sets) it does so from its first moment, and what a killed process leaves
# behind is buried.
#
# Everything that is installed is locked with hashes: uv, the dependencies, and the tool that
# builds the wheel. On a network with a certificate authority of its own, mount that into the build
# and name it: --build-arg PIP_CERT=/run/ca.crt.

# Any Python from 3.11 on will do; both stages must have the same.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG PIP_CERT
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    UV_PYTHON_DOWNLOADS=never
WORKDIR /src

COPY requirements-uv.txt ./
RUN python3 -m venv /opt/uv \
    && /opt/uv/bin/pip install --require-hashes --requirement requirements-uv.txt

# The dependencies first: they change less often than the service.
COPY requirements.txt ./
RUN python3 -m venv --without-pip /opt/postroom \
    && env ${PIP_CERT:+SSL_CERT_FILE="$PIP_CERT"} \
        /opt/uv/bin/uv pip install --python /opt/postroom --compile-bytecode \
        --require-hashes --no-deps --only-binary :all: --requirements requirements.txt

COPY . ./
RUN env ${PIP_CERT:+SSL_CERT_FILE="$PIP_CERT"} \
        /opt/uv/bin/uv build --wheel --out-dir /wheel --require-hashes --build-constraints requirements-dev.txt \
    && /opt/uv/bin/uv pip install --python /opt/postroom --compile-bytecode --no-deps --no-index /wheel/*.whl \
    && rm -f /opt/postroom/.lock


FROM ${BASE}
LABEL org.opencontainers.image.title="Postroom" \
      org.opencontainers.image.description="A company's own mail-sending API on top of Microsoft 365" \
      org.opencontainers.image.licenses="Apache-2.0"

# What installs Python packages has no business in a running service. The base may be another one
# than the official image, so nothing here insists that they exist.
RUN rm -rf /usr/local/bin/pip* /usr/local/bin/wheel /usr/local/lib/python3*/ensurepip \
        /usr/local/lib/python3*/site-packages/pip* /usr/local/lib/python3*/site-packages/setuptools* \
        /usr/local/lib/python3*/site-packages/wheel* \
    && groupadd --gid 10001 postroom \
    && useradd --no-log-init --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent \
        --shell /usr/sbin/nologin postroom

COPY --from=build /opt/postroom /opt/postroom
ENV PATH=/opt/postroom/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

# By number, so that Kubernetes can see that it is not root.
USER 10001:10001
WORKDIR /tmp
EXPOSE 8025
STOPSIGNAL SIGTERM
# For an API, and for a worker whose metrics.port the environment says; Kubernetes has probes of its own. The other
# commands come to their end by themselves: --no-healthcheck.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "from os import environ as e; from urllib.request import urlopen; urlopen(f\"http://127.0.0.1:{e.get('POSTROOM_METRICS__PORT') or e.get('POSTROOM_API__PORT') or 8025}/livez\", timeout=4)"]
ENTRYPOINT ["postroom"]
CMD ["--help"]
