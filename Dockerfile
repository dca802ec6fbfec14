# Everything the stages need, for clusters that run containers (docs/cluster.md).
FROM python:3.12-slim
WORKDIR /opt/diffusion-distillery
COPY constraints.txt pyproject.toml README.md ./
COPY src src
RUN pip install --no-cache-dir -c constraints.txt .
