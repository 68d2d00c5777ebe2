"""The cluster's adapters on NATS. Needs the extra `cluster`; `docs/explanation/wire-and-log-on-nats.md` and `records-on-nats.md` say
what each promises and how."""
