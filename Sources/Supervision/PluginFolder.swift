import Glibc

/// Where filter plugins lie when nobody says.
package enum PluginFolder {
    /// The folder `plugins` beside the programs, as the package has it; the programs' own while there is none, as after
    /// a build.
    package static func standard(beside executables: String) -> String {
        let folder = "\(executables)/plugins"
        return access(folder, F_OK) == 0 ? folder : executables
    }
}
