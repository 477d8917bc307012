# The images of controller, API and worker. What goes in are the wheels of `make dist`, checked against their sums, and
# the locked dependencies, checked against theirs:
#
#   make dist
#   docker build --target controller --tag registry.example.com/alakai-controller:VERSION .
#   docker build --target api        --tag registry.example.com/alakai-api:VERSION .
#   docker build --target worker     --tag registry.example.com/alakai-worker:VERSION .
#
# Pin the base to what you have scanned: --build-arg BASE_IMAGE=docker.io/library/python:3.13-slim@sha256:…
# They run as user 65532 and write nothing: --read-only, with a tmpfs at /tmp.
ARG BASE_IMAGE=docker.io/library/python:3.13-slim

FROM ${BASE_IMAGE} AS install
WORKDIR /wheels
COPY requirements/run.txt ./
RUN python -m venv /opt/alakai \
    && /opt/alakai/bin/pip install --no-cache-dir --disable-pip-version-check --only-binary :all: --require-hashes \
      --requirement run.txt
COPY dist/ ./
RUN sha256sum --check SHA256SUMS \
    && /opt/alakai/bin/pip install --no-cache-dir --disable-pip-version-check --no-index --no-deps ./*.whl \
    && /opt/alakai/bin/python -m compileall -q /opt/alakai \
    && python -m venv /opt/worker \
    && /opt/worker/bin/pip install --no-cache-dir --disable-pip-version-check --no-index --no-deps ./alakai_worker-*.whl

FROM ${BASE_IMAGE} AS runtime
COPY --from=install /opt/alakai /opt/alakai
ENV PATH=/opt/alakai/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /tmp
USER 65532:65532

FROM runtime AS controller
EXPOSE 8080 9090
CMD ["python", "-m", "controller"]

FROM runtime AS api
EXPOSE 3000 8081 9091
CMD ["python", "-m", "api"]

# A base for workers of yours: put your work on top, and `CMD ["your", "command"]`.
FROM ${BASE_IMAGE} AS worker
COPY --from=install /opt/worker /opt/worker
ENV PATH=/opt/worker/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /app
USER 65532:65532
ENTRYPOINT ["alakai-worker", "run", "--"]
