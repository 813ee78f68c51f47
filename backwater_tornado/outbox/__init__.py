"""The outbox: tasks lie in a file on the sender's side until the link lets them through to the broker.

What lies there is `parcels`; `rules` decides, `flows` asks the broker, `rows` and `store` keep the file, `forwarder`
does the work, and `spool` is what an application has of it.
"""
