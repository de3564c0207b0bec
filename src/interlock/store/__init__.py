"""The control database: what the offline and insight wings remember. Serving and gateway never see it."""
