import Testing

extension PlatformTests {
    /// The Debian package in a real systemd that is thrown away afterwards (`Tests/Support/systemd/scenarios/package`).
    @Suite("T22 Debian package", .serialized)
    struct T22_Package {
        @Test(
            "clean installation, upgrade under load, removal that keeps data, purge that leaves nothing",
            .timeLimit(.minutes(10)))
        func fromInstallationToPurge() throws { try Systemd.run("package") }

        @Test(
            "apt-get install from a repository, apt-get upgrade to the next version under load",
            .timeLimit(.minutes(10)))
        func fromRepository() throws { try Systemd.run("repository") }
    }
}
