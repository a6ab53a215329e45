"""Builds, the builders that they run on, and what a saved build is.

The services, in the order in which they are built (app.py does it):

    address     = PublicAddress(url)                                            address.py
    builds      = BuildService(store, images, identity, address, now, client_timeout)  life.py
    reports     = ReportService(builds, store, now)                             reports.py
    listing     = ListingService(builds, store, images)                         listing.py
    pulls       = PullService(builds, images, identity, address)                pulls.py
    pool        = BuilderPool(builders, now)                                    pool.py
    connections = ConnectionService(builds, leases, pool, now, builder_wait)    connections.py

    builders    = [RemoteBuilder(config) for config in ...]   adapters/buildkit/remote.py
               or [EmbeddedBuilder(folder, registry, now)]    adapters/buildkit/embedded.py

`store` and `leases` are ports that one SqlBuildStore implements; `images` is the registry's
answer to the port SavedImages. `pool.run()` and, where there is one, `embedded.run()` are
background tasks for as long as the server lives: cancel them to end it, and await the embedded
builder's, which stops its daemon first. `builds.cancel_vanished(now())` is a job for every few
seconds.
"""
