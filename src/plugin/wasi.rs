//! WASI 0.2 for guests whose language needs it: clocks, random numbers, standard output into the log, an empty environment.
//!
//! Nothing else exists. A call to any other function (files, sockets, waiting) fails inside the guest where its type has an
//! error to return, ends the guest's call where it has not, and is logged once with its name.

use super::bind::{State, clock};
use tokio::time::Instant;
use wasmtime::component::types::{ComponentInstance, ComponentItem, Type};
use wasmtime::component::{
    Component, ComponentType, Lift, Linker, LinkerInstance, Lower, Resource, ResourceType, Val,
};
use wasmtime::{Result, StoreContextMut, bail};

/// The newest WASI whose functions are answered; older 0.2 versions are the same to the linker.
const WASI: &str = "0.2.6";

/// Random bytes that one call may ask for.
const MAX_RANDOM: u64 = 64 * 1024;

/// Bytes of a line of standard output that are kept until its end comes.
const MAX_LINE: usize = 4096;

/// Any resource of WASI's: there is nothing behind it but its number.
#[derive(Debug)]
struct Thing;

/// The number of a thing that nobody tells from another of its kind.
const ANY: u32 = 0;

#[derive(Debug, Clone, Copy, ComponentType, Lift, Lower)]
#[component(record)]
struct Datetime {
    seconds: u64,
    nanoseconds: u32,
}

#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
enum StreamError {
    #[component(name = "last-operation-failed")]
    LastOperationFailed(Resource<Thing>),
    #[component(name = "closed")]
    Closed,
}

/// Offers what of WASI the component imports.
pub(super) fn add_to_linker(linker: &mut Linker<State>, component: &Component) -> Result<()> {
    offer(linker)?;
    deny_the_rest(linker, component).map(drop)
}

/// The functions of WASI's that the component imports and that refuse.
pub(super) fn denied(component: &Component) -> Result<Vec<String>> {
    let mut linker = Linker::new(component.engine());
    offer(&mut linker)?;
    deny_the_rest(&mut linker, component)
}

fn offer(linker: &mut Linker<State>) -> Result<()> {
    environment(linker)?;
    clocks(linker)?;
    random(linker)?;
    streams(linker)
}

fn instance<'a>(linker: &'a mut Linker<State>, name: &str) -> Result<LinkerInstance<'a, State>> {
    linker.instance(&format!("wasi:{name}@{WASI}"))
}

fn environment(linker: &mut Linker<State>) -> Result<()> {
    let mut environment = instance(linker, "cli/environment")?;
    environment.func_wrap("get-environment", |_, (): ()| Ok((Vec::<(String, String)>::new(),)))?;
    environment.func_wrap("get-arguments", |_, (): ()| Ok((Vec::<String>::new(),)))?;
    environment.func_wrap("initial-cwd", |_, (): ()| Ok((None::<String>,)))?;
    for name in ["stdin", "stdout", "stderr"] {
        let mut terminal = instance(linker, &format!("cli/terminal-{name}"))?;
        terminal.func_wrap(&format!("get-terminal-{name}"), |_, (): ()| Ok((None::<Resource<Thing>>,)))?;
    }
    let mut preopens = instance(linker, "filesystem/preopens")?;
    let root = || (Resource::<Thing>::new_own(ANY), "/".to_owned());
    preopens.func_wrap("get-directories", move |_, (): ()| Ok((vec![root()],)))?;
    // The way to a resolver and sockets that refuse, each with an error of its own.
    let mut network = instance(linker, "sockets/network")?;
    network.resource("network", ResourceType::host::<Thing>(), |_, _| Ok(()))?;
    let mut network = instance(linker, "sockets/instance-network")?;
    network.func_wrap("instance-network", |_, (): ()| Ok((Resource::<Thing>::new_own(ANY),)))?;
    let mut exit = instance(linker, "cli/exit")?;
    exit.func_wrap("exit", |_, (status,): (Result<(), ()>,)| -> Result<()> {
        bail!("the plugin called exit ({})", if status.is_ok() { "success" } else { "failure" })
    })
}

fn clocks(linker: &mut Linker<State>) -> Result<()> {
    let mut wall = instance(linker, "clocks/wall-clock")?;
    wall.func_wrap("now", |_, (): ()| {
        let now = clock();
        Ok((Datetime { seconds: now / 1000, nanoseconds: (now % 1000) as u32 * 1_000_000 },))
    })?;
    wall.func_wrap("resolution", |_, (): ()| Ok((Datetime { seconds: 0, nanoseconds: 1_000_000 },)))?;
    let start = Instant::now();
    let mut monotonic = instance(linker, "clocks/monotonic-clock")?;
    monotonic.func_wrap("now", move |_, (): ()| {
        Ok((u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX),))
    })?;
    monotonic.func_wrap("resolution", |_, (): ()| Ok((1u64,)))
}

fn random(linker: &mut Linker<State>) -> Result<()> {
    for (interface, bytes, number) in [
        ("random/random", "get-random-bytes", "get-random-u64"),
        ("random/insecure", "get-insecure-random-bytes", "get-insecure-random-u64"),
    ] {
        let mut random = instance(linker, interface)?;
        random.func_wrap(bytes, |_, (len,): (u64,)| {
            if len > MAX_RANDOM {
                bail!("the plugin asked for {len} random bytes; at most {MAX_RANDOM} are given");
            }
            let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
            fastrand::fill(&mut bytes);
            Ok((bytes,))
        })?;
        random.func_wrap(number, |_, (): ()| Ok((fastrand::u64(..),)))?;
    }
    let mut seed = instance(linker, "random/insecure-seed")?;
    seed.func_wrap("insecure-seed", |_, (): ()| Ok(((fastrand::u64(..), fastrand::u64(..)),)))
}

fn streams(linker: &mut Linker<State>) -> Result<()> {
    let mut error = instance(linker, "io/error")?;
    error.resource("error", ResourceType::host::<Thing>(), |_, _| Ok(()))?;
    let mut streams = instance(linker, "io/streams")?;
    streams.resource("input-stream", ResourceType::host::<Thing>(), |_, _| Ok(()))?;
    streams.resource("output-stream", ResourceType::host::<Thing>(), |_, _| Ok(()))?;
    for name in ["read", "blocking-read"] {
        let read = |_: StoreContextMut<'_, State>, (_, _): (Resource<Thing>, u64)| {
            Ok((Err::<Vec<u8>, _>(StreamError::Closed),))
        };
        streams.func_wrap(&format!("[method]input-stream.{name}"), read)?;
    }
    streams.func_wrap("[method]output-stream.check-write", |_, (_,): (Resource<Thing>,)| {
        Ok((Ok::<u64, StreamError>(MAX_LINE as u64),))
    })?;
    for name in ["write", "blocking-write-and-flush"] {
        let write = |mut store: StoreContextMut<'_, State>, (_, bytes): (Resource<Thing>, Vec<u8>)| {
            print(store.data_mut(), &bytes);
            Ok((Ok::<(), StreamError>(()),))
        };
        streams.func_wrap(&format!("[method]output-stream.{name}"), write)?;
    }
    for name in ["flush", "blocking-flush"] {
        let flush =
            |_: StoreContextMut<'_, State>, (_,): (Resource<Thing>,)| Ok((Ok::<(), StreamError>(()),));
        streams.func_wrap(&format!("[method]output-stream.{name}"), flush)?;
    }
    for name in ["stdin", "stdout", "stderr"] {
        let mut stream = instance(linker, &format!("cli/{name}"))?;
        stream.func_wrap(&format!("get-{name}"), |_, (): ()| Ok((Resource::<Thing>::new_own(ANY),)))?;
    }
    ready(linker)
}

/// Streams are always ready, so waiting for one ends at once; other things to wait for are not to be had.
fn ready(linker: &mut Linker<State>) -> Result<()> {
    let mut streams = instance(linker, "io/streams")?;
    for name in ["input-stream", "output-stream"] {
        let subscribe =
            |_: StoreContextMut<'_, State>, (_,): (Resource<Thing>,)| Ok((Resource::<Thing>::new_own(ANY),));
        streams.func_wrap(&format!("[method]{name}.subscribe"), subscribe)?;
    }
    let mut poll = instance(linker, "io/poll")?;
    poll.resource("pollable", ResourceType::host::<Thing>(), |_, _| Ok(()))?;
    poll.func_wrap("[method]pollable.ready", |_, (_,): (Resource<Thing>,)| Ok((true,)))?;
    poll.func_wrap("[method]pollable.block", |_, (_,): (Resource<Thing>,)| Ok(()))?;
    poll.func_wrap("poll", |_, (things,): (Vec<Resource<Thing>>,)| {
        Ok((things.iter().zip(0u32..).map(|(_, index)| index).collect::<Vec<_>>(),))
    })
}

/// Standard output and error, line by line.
fn print(state: &mut State, mut bytes: &[u8]) {
    while let Some(end) = memchr::memchr(b'\n', bytes) {
        let mut line = std::mem::take(&mut state.unfinished_line);
        line.extend_from_slice(&bytes[..end.min(MAX_LINE)]);
        state.print(&String::from_utf8_lossy(&line));
        bytes = &bytes[end + 1..];
    }
    let room = MAX_LINE.saturating_sub(state.unfinished_line.len());
    state.unfinished_line.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

/// Gives every function of WASI's that is imported and not offered a body that refuses; the names of these.
fn deny_the_rest(linker: &mut Linker<State>, component: &Component) -> Result<Vec<String>> {
    let engine = linker.engine().clone();
    let ty = component.component_type();
    let mut denied = Vec::new();
    for (name, item) in ty.imports(&engine).filter(|(name, _)| name.starts_with("wasi:")) {
        let ComponentItem::ComponentInstance(interface) = item.ty else { continue };
        // To the linker all of 0.2 is one version, as long as it stands under one name.
        let offered = name.split_once("@0.2.").map(|(interface, _)| format!("{interface}@{WASI}"));
        deny(linker, offered.as_deref().unwrap_or(name), &interface, &mut denied)?;
    }
    Ok(denied)
}

fn deny(
    linker: &mut Linker<State>,
    name: &str,
    interface: &ComponentInstance,
    denied: &mut Vec<String>,
) -> Result<()> {
    let engine = linker.engine().clone();
    let mut instance = linker.instance(name)?;
    for (item, ty) in interface.exports(&engine) {
        match ty.ty {
            ComponentItem::ComponentFunc(_) => {
                if let Some(answer) = of_the_root(item) {
                    drop(instance.func_new(item, move |_, _, _, results| {
                        results.fill(answer.clone());
                        Ok(())
                    }));
                    continue;
                }
                let call = format!("{name}#{item}");
                let refuses = call.clone();
                let added = instance.func_new(item, move |store, ty, _, results| {
                    store.data().shared.log_denied(&call);
                    let answer = ty.results().next().and_then(|result| refusal(&result));
                    match (answer, results) {
                        (Some(answer), [result]) => *result = answer,
                        _ => bail!("the plugin called {call}, which plugins may not"),
                    }
                    Ok(())
                });
                // An error means that it is offered already, and that stays.
                denied.extend(added.is_ok().then_some(refuses));
            }
            ComponentItem::Resource(_) => {
                drop(instance.resource(item, ResourceType::host::<Thing>(), |_, _| Ok(())));
            }
            _ => {}
        }
    }
    Ok(())
}

/// What the root directory is. Without one the languages' libraries fail before they ask us for a file, and nobody would learn
/// from the log that the plugin wanted one.
fn of_the_root(item: &str) -> Option<Val> {
    let answer = match item {
        "[method]descriptor.get-type" => Val::Enum("directory".to_owned()),
        "[method]descriptor.get-flags" => Val::Flags(vec!["read".to_owned()]),
        _ => return None,
    };
    Some(Val::Result(Ok(Some(Box::new(answer)))))
}

/// "Not allowed" in the words of the function's own result type; nothing where it has none.
fn refusal(result: &Type) -> Option<Val> {
    let Type::Result(result) = result else { return None };
    let codes = match result.err() {
        Some(Type::Enum(codes)) => codes,
        Some(_) => return None,
        None => return Some(Val::Result(Err(None))),
    };
    let wanted = ["access-denied", "access", "not-permitted", "not-supported"];
    let code = wanted.into_iter().find(|wanted| codes.names().any(|name| name == *wanted))?;
    Some(Val::Result(Err(Some(Box::new(Val::Enum(code.to_owned()))))))
}
