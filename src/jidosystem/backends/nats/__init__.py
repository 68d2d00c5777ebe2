"""The cluster's adapters on NATS. Needs the extra `cluster`; read `docs/explanation/nats.md` for what each promises and how."""
