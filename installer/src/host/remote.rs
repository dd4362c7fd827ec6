//! A program at the other end of an SSH channel, as a blocking [`Session`].

use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use bytes::Bytes;
use russh::client::Msg;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};
use sealrs_image::error::{Error, ErrorKind, Result};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use super::connection::Connection;
use super::session::{HELD_OPEN, Tail, held_open};
use super::{Output, Session, pipe};

/// Ends what has `$1=$2` in its environment: asked first, killed a second later. In two parts, for sudo puts its command
/// line into the environment of what it runs, and this shall not find itself.
const END: &str = r#"for signal in TERM KILL; do for i in 1 2 3 4 5 6 7 8 9 10; do
  ids=$(grep -lsF "$1=$2" /proc/[0-9]*/environ | cut -d/ -f3)
  [ -n "$ids" ] || exit 0
  [ $i != 1 ] || kill -s $signal $ids 2>/dev/null
  sleep 0.1 2>/dev/null || sleep 1
done; done"#;
/// Time for ending a program.
const ENDING: Duration = Duration::from_secs(10);

/// How a program is ended that does not end by itself: by another one.
///
/// OpenSSH passes signals on to no program of root, and closing the channel ends only what reads or writes.
pub(super) struct Ending {
    pub(super) connection: Arc<Connection>,
    /// A line of shell.
    pub(super) line: String,
    /// What it reads: sudo's password, if need be.
    pub(super) input: String,
}

impl Ending {
    /// The program that ends what has this variable in its environment.
    pub(super) fn argv(name: &str, value: &str) -> Vec<String> {
        ["sh", "-c", END, "sh", name, value].map(str::to_owned).to_vec()
    }

    async fn run(self) -> Result<(), russh::Error> {
        let mut channel = self.connection.handle.channel_open_session().await?;
        channel.exec(false, self.line).await?;
        channel.data_bytes(self.input.into_bytes()).await?;
        channel.eof().await?;
        while channel.wait().await.is_some() {}
        Ok(())
    }
}

/// The session of a program that was just asked for on `channel`.
pub(super) fn session(runtime: &Handle, channel: Channel<Msg>, ending: Ending) -> Session {
    let (stdin, to_program) = pipe::input();
    let (output, stdout) = pipe::output();
    let (sender, end) = sync_channel(1);
    let stderr = Tail::default();
    let stop = Arc::new(Notify::new());
    let (tail, stopped) = (stderr.clone(), Arc::clone(&stop));
    runtime.spawn(async move {
        if let Some(result) = drive(channel, to_program, output, tail, &stopped, ending).await {
            let _ = sender.send(result);
        }
    });
    Session {
        stdin: Some(Box::new(stdin)),
        stdout: Some(Box::new(stdout)),
        stderr,
        end,
        stop: Arc::new(move || stop.notify_one()),
    }
}

/// Feeds and reads the program until it ended; nothing when it was stopped.
async fn drive(
    channel: Channel<Msg>,
    input: mpsc::Receiver<Bytes>,
    output: mpsc::Sender<Bytes>,
    stderr: Tail,
    stop: &Notify,
    ending: Ending,
) -> Option<Result<Output>> {
    let (mut reader, writer) = channel.split();
    let end = {
        let mut feed = std::pin::pin!(write(&writer, input));
        let mut read = std::pin::pin!(read(&mut reader, output, stderr));
        let mut is_fed = false;
        loop {
            tokio::select! {
                end = &mut read => break Some(end),
                () = &mut feed, if !is_fed => is_fed = true,
                () = stop.notified() => break None,
            }
        }
    };
    match &end {
        // It is closed already; a message about it would be one about an unknown channel.
        Some(Ok(_)) => {}
        Some(Err(_)) => drop(timeout(ENDING, writer.close()).await),
        None => {
            let _ = timeout(ENDING, ending.run()).await;
            let _ = timeout(ENDING, writer.close()).await;
        }
    }
    end
}

/// Sends what comes, then the end of the file.
async fn write(writer: &ChannelWriteHalf<Msg>, mut input: Receiver<Bytes>) {
    while let Some(piece) = input.recv().await {
        if writer.data_bytes(piece).await.is_err() {
            return;
        }
    }
    let _ = writer.eof().await;
}

/// Passes on what comes until the channel is closed, which is when nobody can write to it any more.
async fn read(reader: &mut ChannelReadHalf, output: Sender<Bytes>, stderr: Tail) -> Result<Output> {
    let mut end: Option<Output> = None;
    loop {
        let message = match &end {
            None => reader.wait().await,
            Some(_) => timeout(HELD_OPEN, reader.wait()).await.map_err(|_| held_open())?,
        };
        let ended = |status, signal| Output {
            status,
            signal,
            ..Output::default()
        };
        match message {
            None => break,
            Some(ChannelMsg::Data { data }) => {
                // When nobody reads any more, the rest is thrown away, so that others go on.
                let _ = output.send(data).await;
            }
            Some(ChannelMsg::ExtendedData { data, ext: 1 }) => stderr.push(&data),
            Some(ChannelMsg::ExitStatus { exit_status }) => end = Some(ended(Some(exit_status.cast_signed()), None)),
            Some(ChannelMsg::ExitSignal { signal_name, .. }) => end = Some(ended(None, Some(name(&signal_name)))),
            Some(ChannelMsg::Failure) => {
                return Err(Error::new(ErrorKind::Step, "the server does not run programs"));
            }
            Some(_) => {}
        }
    }
    end.ok_or_else(|| {
        Error::new(ErrorKind::Network, "the connection broke before the program ended")
            .hint("whether it did its work is not known; see that the host is up and run again")
    })
}

fn name(signal: &Sig) -> String {
    match signal {
        Sig::Custom(name) => name.clone(),
        known => format!("{known:?}"),
    }
}
