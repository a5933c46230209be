import Foundation
import Supervision
import TestFolders
import Testing

@Suite("where data lies by default")
struct StateFolderTests {
    @Test("an absolute path without dots and doubled slashes, whether it exists or not")
    func absolute() {
        #expect(StateFolder.absolute("/a//b/./c/") == "/a/b/c")
        #expect(StateFolder.absolute("/nowhere/a/../b") == "/nowhere/b")
        #expect(StateFolder.absolute("/../..") == "/")
        let here = String(cString: getcwd(nil, 0))
        #expect(StateFolder.absolute("x/y") == "\(here)/x/y")
        #expect(StateFolder.absolute(".") == here)
    }

    @Test("behind a symbolic link .. is the folder above the one it leads to")
    func links() throws {
        let folder = try TestFolder.make("paths").path
        #expect(mkdir("\(folder)/deep", 0o755) == 0 && mkdir("\(folder)/deep/er", 0o755) == 0)
        #expect(symlink("\(folder)/deep/er", "\(folder)/link") == 0)
        let real = try #require(realpath(folder, nil).map { String(cString: $0) })
        #expect(StateFolder.absolute("\(folder)/link/../x") == "\(real)/deep/x")
        #expect(StateFolder.absolute("\(folder)/link/x") == "\(folder)/link/x")
    }

    @Test("the home folder is $HOME's, by name that of the system's list of users; of nobody it is nil")
    func home() throws {
        let name = try #require(getpwuid(geteuid())).pointee
        #expect(StateFolder.home(of: String(cString: name.pw_name)) == String(cString: name.pw_dir))
        #expect(StateFolder.home() == StateFolder.variable("HOME") ?? String(cString: name.pw_dir))
        #expect(StateFolder.home(of: "no-such-user-\(getpid())") == nil)
    }
}
