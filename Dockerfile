# One image for every service: `docker build -t stagecast .`, then `docker run stagecast broadcaster --help`.
FROM python:3.11-slim AS build
WORKDIR /build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
COPY requirements.lock pyproject.toml README.md ./
RUN python -m venv /opt/stagecast \
 && /opt/stagecast/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements.lock
COPY stagecast stagecast
COPY kv kv
COPY pushy pushy
COPY broadcaster broadcaster
COPY prefetch prefetch
COPY loadtest loadtest
COPY sdk/js/src sdk/js/src
RUN /opt/stagecast/bin/pip install --no-cache-dir --no-build-isolation --no-deps . \
 && cd / && /opt/stagecast/bin/python -m pushy.native

FROM python:3.11-slim
RUN useradd --system --uid 10001 --home-dir /data stagecast && install -d -o stagecast -m 0700 /data
COPY --from=build /opt/stagecast /opt/stagecast
ENV PATH=/opt/stagecast/bin:$PATH PYTHONUNBUFFERED=1 STAGECAST_DATA=/data
USER stagecast
WORKDIR /data
VOLUME /data
ENTRYPOINT ["stagecast"]
CMD ["--help"]
