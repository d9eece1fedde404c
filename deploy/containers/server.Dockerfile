# The edge server. From the top of the repository:
#
#   docker build -f deploy/containers/server.Dockerfile -t adaptive-split-server .
#   docker run --read-only --cap-drop ALL --security-opt no-new-privileges --stop-timeout 15 \
#     -v /etc/adaptive-split:/etc/adaptive-split:ro -p 50051:50051 -p 127.0.0.1:9465:9465 \
#     adaptive-split-server
#
# Written without an engine at hand: this recipe has not been built.

FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY adaptive_split adaptive_split
RUN python -m venv /opt/adaptive-split \
    && /opt/adaptive-split/bin/pip install --no-cache-dir -c constraints.txt .

FROM python:3.12-slim
COPY --from=build /opt/adaptive-split /opt/adaptive-split
RUN useradd --system --no-create-home adaptive-split
USER adaptive-split
ENV PATH=/opt/adaptive-split/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
EXPOSE 50051 9465
STOPSIGNAL SIGTERM
ENTRYPOINT ["adaptive-split", "serve", "--log-format", "json"]
CMD ["--bundle", "garments", "--host", "0.0.0.0", "--port", "50051", \
     "--ca", "/etc/adaptive-split/ca.pem", "--certificate", "/etc/adaptive-split/server.pem", \
     "--key", "/etc/adaptive-split/server.key", "--allow-file", "/etc/adaptive-split/allowed", \
     "--metrics-host", "0.0.0.0", "--metrics-port", "9465"]
