"""Builds, the builders that they run on, and what a saved build is.

The services, in the order in which they are built (app.py does it):

    builds      = BuildService(store, images, identity, now, client_timeout)    life.py
    reports     = ReportService(builds, store, now)                             reports.py
    listing     = ListingService(builds, store, images)                         listing.py
    pulls       = PullService(builds, images, identity, PublicAddress(url))     pulls.py
    pool        = BuilderPool(builders, now)                                    pool.py
    connections = ConnectionService(builds, leases, pool, now, builder_wait)    connections.py

`store` and `leases` are ports that one SqlBuildStore implements; `images` is the registry's
answer to the port SavedImages; `builders` come from adapters/buildkit. `pool.run()` is a
background task for as long as the server lives; `builds.cancel_vanished(now())` a job for
every few seconds.
"""
