# The device runtime on a Jetson with JetPack 6 (Orin; aarch64, Ubuntu 22.04, Python 3.10). BASE is
# NVIDIA's image of the L4T release that the board runs (cat /etc/nv_tegra_release), by its full name
# in NVIDIA's own registry. On the board, from the top of the repository:
#
#   docker build -f deploy/containers/device.Dockerfile --build-arg BASE=REGISTRY/nvidia/l4t-jetpack:r36.4.0 \
#     -t adaptive-split-device .
#   docker run --runtime nvidia --read-only --cap-drop ALL --security-opt no-new-privileges \
#     --stop-timeout 15 --network host --device /dev/video0 --group-add video \
#     -v /etc/adaptive-split:/etc/adaptive-split:ro -v adaptive-split:/var/lib/adaptive-split \
#     adaptive-split-device --server edge.example:50051 --scenario default --camera v4l2:/dev/video0 \
#     --slowdown 0 --records /var/lib/adaptive-split/$(date +%s).jsonl --metrics-port 9464 \
#     --ca /etc/adaptive-split/ca.pem --certificate /etc/adaptive-split/device.pem \
#     --key /etc/adaptive-split/device.key
#
# A Nano (JetPack 4) or Xavier (JetPack 5) has an older Python: there BASE is any arm64 Ubuntu 22.04
# and everything is computed on the CPU. Power rails are read in /sys, which a container sees.
# Written without a Jetson or an engine at hand: this recipe has not been built.

ARG BASE=nvidia/l4t-jetpack:r36.4.0
FROM ${BASE}
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY adaptive_split adaptive_split
RUN python3 -m venv /opt/adaptive-split \
    && /opt/adaptive-split/bin/pip install --no-cache-dir -c constraints.txt ".[camera]"
RUN useradd --system --no-create-home --groups video adaptive-split \
    && install -d -o adaptive-split -g adaptive-split /var/lib/adaptive-split
USER adaptive-split
WORKDIR /var/lib/adaptive-split
VOLUME /var/lib/adaptive-split
ENV PATH=/opt/adaptive-split/bin:$PATH OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
STOPSIGNAL SIGTERM
ENTRYPOINT ["adaptive-split", "run", "--log-format", "json"]
